"""Writes, names, removes and hashes files.

A file is written beside its place under its writer's name and then renamed. It therefore appears whole or not at all,
and what a killed process left can be told from what a living one is writing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.failpoints import failpoint

SUFFIX = ".partial"


def partial(path: Path) -> Path:
    """Return where this process writes what will be ``path``."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{SUFFIX}")


def abandoned(folder: Path, of: str = "**/*") -> Iterator[Path]:
    """Yield the partial files below a folder whose writer, a process of this machine, has ended.

    ``of`` is a pattern of the files' own names.
    """
    here = f".{socket.gethostname()}-"
    for path in folder.glob(f"{of}{here}*{SUFFIX}"):
        writer = path.name.removesuffix(SUFFIX).rpartition(here)[2]
        if writer.isdecimal() and not Path("/proc", writer).exists():  # the name of node-2 begins as that of node
            yield path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a partial file to write. It takes the place of ``path`` afterwards, or is removed if the write failed."""
    written = partial(path)
    try:
        yield written
        os.replace(written, path)
    finally:
        written.unlink(missing_ok=True)


def replace_file(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a small file so that readers see the old one or the new one.

    With ``durable``, a power cut leaves one of the two as well. Raises ``OSError`` that names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as written:
            if durable:
                write_durably(written, text.encode())
            else:
                written.write_text(text, "utf-8")
            failpoint("replace.written")
    except OSError as error:  # named by what is wanted, not by what it is written as
        raise OSError(error.errno, error.strerror, str(path)) from error
    if durable:
        sync(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and force it to disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_LFS = b"version https://git-lfs.github.com/spec/"


def is_pointer(path: Path) -> bool:
    """Return whether a file is Git LFS's pointer to a file that was not fetched. Raises ``OSError``."""
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS
