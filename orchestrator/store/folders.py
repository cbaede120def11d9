"""The folders of jobs, beside those of stages, and what killed commands left in them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.files import abandoned


def job_folder(root: Path, name: str) -> Path:
    """Return the folder with the report and the records of a job."""
    return root / "jobs" / name


def sweep(root: Path) -> None:
    """Remove the partial files of killed commands. Partial stages are removed by the next holder of their claim."""
    for folder in (root / "jobs", root / "data"):
        for path in abandoned(folder):
            path.unlink(missing_ok=True)
