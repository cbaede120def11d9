"""Where things that belong to a job and not to a stage are, and how their files are replaced."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.failpoints import failpoint
from orchestrator.partial import abandoned, partial


def job_folder(root: Path, name: str) -> Path:
    """Where the report and the progress of a job are."""
    return root / "jobs" / name


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
