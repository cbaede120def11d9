"""Writes a job's report: CSV, picture and page. Each appears complete or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.plan import Plan
from orchestrator.report.figure import frontier_png
from orchestrator.report.page import report_html
from orchestrator.report.table import frontier_csv
from orchestrator.report.trials import removals, setbacks
from orchestrator.store.frontier import frontier
from orchestrator.store.stages import StageStore


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written."""

    csv: Path
    png: Path
    html: Path


def write_report(plan: Plan, store: StageStore, folder: Path) -> ReportFiles:
    """Write the report of whatever is committed, over an earlier one."""
    points = frontier(plan, store)
    folder.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(folder / "frontier.csv", folder / "frontier.png", folder / "report.html")
    _replace(files.csv, lambda path: path.write_text(frontier_csv(points), "utf-8"))
    _replace(files.png, lambda path: frontier_png(points, removals(plan, store), setbacks(plan, store), path))
    _replace(files.html, lambda path: path.write_text(report_html(plan, store, points), "utf-8"))
    return files


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
