"""Where things that belong to a job and not to a stage are, and what killed commands left there."""

from __future__ import annotations

import stat
from pathlib import Path

from orchestrator.errors import Problem, StoreError
from orchestrator.files import abandoned

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


def sweep(root: Path) -> None:
    """Remove the half-written files of killed commands; what they left of stages, their claims' holders remove."""
    for folder in (root / "jobs", root / "data"):
        for path in abandoned(folder):
            path.unlink(missing_ok=True)
