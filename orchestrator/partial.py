"""Files while they are being written: named after their writer, so that what a killed one left can be told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".partial"


def partial(path: Path) -> Path:
    """Where this process writes what will be ``path``."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{SUFFIX}")


def abandoned(folder: Path, of: str = "**/*") -> Iterator[Path]:
    """The partial files below a folder whose writer, a process of this machine, has ended. ``of``: of one name."""
    ours = f".{socket.gethostname()}-"
    for path in folder.glob(f"{of}{ours}*{SUFFIX}"):
        writer = path.name.removesuffix(SUFFIX).rpartition(ours)[2]
        if writer.isdecimal() and not Path("/proc", writer).exists():  # node-2's begins as node's does
            yield path
