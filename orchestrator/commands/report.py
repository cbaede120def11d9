"""Writes a job's report and prints how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from orchestrator.commands.given import short
from orchestrator.errors import FORBIDDEN, InputError, Problem
from orchestrator.plan import Plan
from orchestrator.report import write_report
from orchestrator.report.terminal.ending import ending
from orchestrator.results.findings import Findings
from orchestrator.store import StageStore, job_folder
from orchestrator.trials.chain import Chain
from orchestrator.trials.drift import refuse_other_job


def print_report(plan: Plan, store: StageStore, console: Console) -> None:
    """Write the report's files; print the frontier and where they are, or why they are not."""
    findings = findings_of(plan, store)
    print_ending(findings, written_report(findings, report_folder(plan, store)), console)


def written_report(findings: Findings, folder: Path) -> str:
    """Write the report's files. Return where they are, or that a store which can only be read has none."""
    try:
        write_report(findings, folder)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        return f"not written: {error.filename or folder}: {error.strerror}"
    return short(folder / "report.html")


def print_ending(findings: Findings, report: str, console: Console) -> None:
    """Print the frontier, and the line that ``written_report`` returns."""
    console.print()
    for part in ending(findings):
        console.print(part)
    console.print(f"report   {report}")


def findings_of(plan: Plan, store: StageStore, known: Iterable[Chain] = ()) -> Findings:
    """Return what is to be reported. Raises ``InputError`` if it is nothing, or if another job ran under this name."""
    refuse_other_job(plan, store)
    findings = Findings.of(plan, store, known)
    if not findings.points:
        found = f"holds no stage of {plan.job.name} with this configuration"
        raise InputError(Problem("STO012", str(store.root), found, "run the job first"))
    return findings


def report_folder(plan: Plan, store: StageStore) -> Path:
    return job_folder(store.root, plan.job.name, "report")
