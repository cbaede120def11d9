"""The report: what the committed stages of a job say, as tables, a picture and one HTML page."""

from orchestrator.report.files import ReportFiles, write_report
from orchestrator.report.table import (
    SummaryRow,
    frontier_csv,
    frontier_table,
    standings_table,
    summary_rows,
    summary_table,
)

__all__ = [
    "ReportFiles",
    "SummaryRow",
    "frontier_csv",
    "frontier_table",
    "standings_table",
    "summary_rows",
    "summary_table",
    "write_report",
]
