"""Where things that belong to a job and not to a stage are, and how their files are replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.errors import Problem, StoreError
from orchestrator.failpoints import failpoint
from orchestrator.partial import abandoned, partial

MOST_RECORD_BYTES = 64 << 20
"""Of a manifest or a saved job: a thousand times what one takes."""


def job_folder(root: Path, name: str, *below: str) -> Path:
    """Where the report and the progress of a job are, or what is below. Raises ``StoreError`` if a link leads out."""
    return inside(root, root.joinpath("jobs", name, *below))


def inside(root: Path, path: Path) -> Path:
    """Return a path of a store. Raises ``StoreError`` if it leads out: a store may come from somebody else."""
    if not path.resolve().is_relative_to(root.resolve()):
        found = f"leads out of the store, to {path.resolve()}"
        raise StoreError(Problem("STO009", str(path), found, "remove the link; a store holds its own files"))
    return path


def read_record(root: Path, path: Path) -> bytes:
    """Read a small file of a store. Raises ``OSError``, and ``StoreError`` for what is none of a store's."""
    state = inside(root, path).stat()
    if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_RECORD_BYTES:
        found = f"{state.st_size:,} bytes" if stat.S_ISREG(state.st_mode) else "is no file"
        fix = f"a record is a file of at most {MOST_RECORD_BYTES:,} bytes; remove it"
        raise StoreError(Problem("STO010", str(path), found, fix))
    return path.read_bytes()


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


def sweep(root: Path) -> None:
    """Remove the half-written files of killed commands; what they left of stages, their claims' holders remove."""
    for folder in (root / "jobs", root / "data"):
        for path in abandoned(folder):
            path.unlink(missing_ok=True)
