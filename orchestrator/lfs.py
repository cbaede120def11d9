"""Git LFS: a clone without it has small pointer files in the place of large ones."""

from __future__ import annotations

from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(path: Path) -> bool:
    """Whether a file is a pointer. Raises ``OSError``."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER
