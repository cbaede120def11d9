"""Hashes a few large files together: read piece by piece, and not again until one of them changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from orchestrator.files import replace_file

PIECE_BYTES = 1 << 20
WORTH_REMEMBERING = 1 << 24
"""The bytes from which on a hash is remembered: less is hashed in the time that looking it up takes."""

Stamp = tuple[str, int, int, int, int]
"""A file's path, its bytes, the times when its content and when anything of it changed in ns, and its inode."""


def fingerprint(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the files, one after the other.

    It is remembered in the user's cache folder (``XDG_CACHE_HOME``, or ``~/.cache``) by the files' stamps.
    """
    return _fingerprint(_stamps(files))


def _stamps(files: Sequence[Path]) -> tuple[Stamp, ...]:
    states = [(path.resolve(), path.stat()) for path in files]
    return tuple((str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for path, s in states)


@lru_cache(maxsize=64)
def _fingerprint(stamps: tuple[Stamp, ...]) -> str:
    memory = _memory([path for path, *_ in stamps])
    if memory is None or sum(size for _, size, *_ in stamps) < WORTH_REMEMBERING:
        return _sha256(stamps)
    known = [list(stamp) for stamp in stamps]
    with suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads(memory.read_bytes())
        if remembered["files"] == known and len(bytes.fromhex(remembered["sha256"])) == 32:
            return remembered["sha256"]
    found = _sha256(stamps)
    with suppress(OSError):
        if _stamps([Path(path) for path, *_ in stamps]) == stamps:
            replace_file(memory, json.dumps({"files": known, "sha256": found}), durable=False)
    return found


def _memory(paths: Sequence[str]) -> Path | None:
    """Return the file that remembers the hash of these files; None where a user has no folder for it."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256("\0".join(paths).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Path(cache) / "stepwise" / "models" / f"{name}.json" if os.path.isabs(cache) else None


def _sha256(stamps: Sequence[Stamp]) -> str:
    sha256, piece = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
    for path, *_ in stamps:
        with open(path, "rb", buffering=0) as file:
            while read := file.readinto(piece):
                sha256.update(piece[:read])
    return sha256.hexdigest()
