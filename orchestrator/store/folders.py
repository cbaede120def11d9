"""Where things that belong to a job and not to a stage are, and what killed commands left there."""

from __future__ import annotations

from pathlib import Path

from orchestrator.files import abandoned


def job_folder(root: Path, name: str) -> Path:
    """Where the report and the progress of a job are."""
    return root / "jobs" / name


def sweep(root: Path) -> None:
    """Remove the half-written files of killed commands; what they left of stages, their claims' holders remove."""
    for folder in (root / "jobs", root / "data"):
        for path in abandoned(folder):
            path.unlink(missing_ok=True)
