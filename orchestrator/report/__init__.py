"""The report: the committed stages of a job as tables, a picture and one HTML page."""

from orchestrator.report.writing import ReportFiles, write_report

__all__ = ["ReportFiles", "write_report"]
