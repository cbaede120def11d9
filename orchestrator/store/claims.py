"""Claims: a process claims the stage that it trains, so that others wait for it instead of training it too.

A claim saves work and is not needed for safety: a commit is safe without it. It is a lock on a file, which the kernel
releases when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orchestrator.failpoints import failpoint


class Claim:
    """A lock that is held until ``release``, or until its process ends."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def release(self) -> None:
        """Give the claim up."""
        os.close(self._handle)


def claim(path: Path) -> Claim | None:
    """Lock a file, which is made if it is missing. Returns None while another holds the lock.

    Raises ``OSError`` if a link stands in its place.
    """
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    if not os.fstat(handle).st_nlink:  # the stage was forgotten meanwhile, and the lock with it
        os.close(handle)
        return None
    failpoint("claim.taken")
    return Claim(handle)


def held(path: Path) -> bool:
    """Return whether a process holds the claim. While this asks, a ``claim`` fails and has to be tried again."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
