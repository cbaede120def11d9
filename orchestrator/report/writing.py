"""Writes a job's report: tables, pictures and page. Each file appears complete or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.files import replacing
from orchestrator.report.columns import frontier_arrow, frontier_csv
from orchestrator.report.html.page import frontier_svg, report_html
from orchestrator.results.findings import Findings


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report."""

    csv: Path
    parquet: Path
    png: Path
    svg: Path
    html: Path

    @classmethod
    def within(cls, folder: Path) -> ReportFiles:
        """Return the files of a report in ``folder``."""
        names = ("frontier.csv", "frontier.parquet", "frontier.png", "frontier.svg", "report.html")
        return cls(*(folder / name for name in names))


def write_report(findings: Findings, folder: Path) -> ReportFiles:
    """Write the report of whatever is committed, over an earlier one."""
    from pyarrow.parquet import write_table

    files = ReportFiles.within(folder)
    folder.mkdir(parents=True, exist_ok=True)
    svg = frontier_svg(findings)
    _replace(files.csv, lambda path: path.write_text(frontier_csv(findings.points), "utf-8"))
    _replace(files.parquet, lambda path: write_table(frontier_arrow(findings.points), path))
    _replace(files.svg, lambda path: path.write_text(svg, "utf-8"))
    _replace(files.png, lambda path: path.write_bytes(_png(svg)))
    _replace(files.html, lambda path: path.write_text(report_html(findings), "utf-8"))
    return files


def _png(svg: str) -> bytes:
    """Return the picture in pixels, with the letters that matplotlib brings: a machine may have no fonts."""
    from matplotlib import get_data_path
    from resvg_py import svg_to_bytes

    letters = Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return svg_to_bytes(svg, zoom=1.5, skip_system_fonts=True, font_files=[str(letters)])


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    with replacing(path) as unfinished:
        write(unfinished)
