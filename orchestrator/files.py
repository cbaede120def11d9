"""How files are written, named and hashed.

A file is written beside its place under its writer's name, so that what a killed one left can be told, and appears
whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from orchestrator.failpoints import failpoint

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


_POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(path: Path) -> bool:
    """Whether a file is a pointer. Raises ``OSError``."""
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def replace_file(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a small file so that readers see the old one or the new one, and so that a power cut leaves one of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = partial(path)
    try:
        if durable:
            write_durably(written, text.encode())
        else:
            written.write_text(text, "utf-8")
        failpoint("replace.written")
        os.replace(written, path)
    except OSError as error:  # named by what is wanted, not by what it is written as
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        sync_folder(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and force it to disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Force the names in a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
