"""Where things that belong to a job and not to a stage are, and how their files are replaced."""

from __future__ import annotations

import os
from pathlib import Path


def job_folder(root: Path, name: str) -> Path:
    """Where the report and the progress of a job are."""
    return root / "jobs" / name


def replace_file(path: Path, text: str) -> None:
    """Write a small file so that readers see the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(text)
    os.replace(partial, path)
