"""Places on the commit and recovery paths at which a test can make this process die or a write fail.

The environment alone arms a place. ``STEPWISE_FAILPOINT=commit.linked:2:kill`` sends SIGKILL to the process when it
comes to ``commit.linked`` for the second time. With an errno's name in the place of ``kill``, as ``ENOSPC``, an
``OSError`` is raised there. The place ``any`` counts the passages of all places.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

ENVIRONMENT = "STEPWISE_FAILPOINT"

_passed: Counter[str] = Counter()


def failpoint(place: str) -> None:
    """Do nothing, unless this place is armed and its turn has come; say so on stderr before it strikes."""
    armed = os.environ.get(ENVIRONMENT)
    if not armed:
        return
    name, turn, action = armed.split(":")
    if name not in (place, "any"):
        return
    _passed[name] += 1
    if _passed[name] != int(turn):
        return
    os.write(2, f"failpoint {place}: {action}\n".encode())
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = getattr(errno, action)
    raise OSError(number, os.strerror(number))
