"""The folders of jobs, beside those of stages, and what killed commands left in them."""

from __future__ import annotations

import stat
from pathlib import Path

from orchestrator.errors import Problem, StoreError
from orchestrator.files import abandoned

MOST_RECORD_BYTES = 64 << 20
"""The most bytes of a manifest or a saved job: a thousand times what one takes."""


def job_folder(root: Path, name: str, *below: str) -> Path:
    """Return the folder with the report and the records of a job, or a path below it.

    Raises ``StoreError`` if a link leads out of the store.
    """
    return inside(root, root.joinpath("jobs", name, *below))


def inside(root: Path, path: Path) -> Path:
    """Return a path of a store. Raises ``StoreError`` if it leads out: a store may come from another person."""
    if not path.resolve().is_relative_to(root.resolve()):
        found = f"leads out of the store, to {path.resolve()}"
        raise StoreError(Problem("STO009", str(path), found, "remove the link; a store holds its own files"))
    return path


def read_record(root: Path, path: Path) -> bytes:
    """Read a small file of a store.

    Raises ``OSError``, and ``StoreError`` if the path leads out, is no regular file, or is larger than any record.
    """
    state = inside(root, path).stat()
    if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_RECORD_BYTES:
        found = f"{state.st_size:,} bytes" if stat.S_ISREG(state.st_mode) else "is no file"
        fix = f"a record is a file of at most {MOST_RECORD_BYTES:,} bytes; remove it"
        raise StoreError(Problem("STO010", str(path), found, fix))
    return path.read_bytes()


def sweep(root: Path) -> None:
    """Remove the partial files of killed commands. Partial stages are removed by the next holder of their claim."""
    for folder in (root / "jobs", root / "data"):
        for path in abandoned(folder):
            path.unlink(missing_ok=True)
