"""Writes a job's report and prints how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from orchestrator.commands.given import short
from orchestrator.errors import InputError, Problem
from orchestrator.plan import Plan
from orchestrator.report import write_report
from orchestrator.report.terminal.ending import ending
from orchestrator.results.findings import Findings
from orchestrator.store import StageStore, job_folder
from orchestrator.trials.chain import Chain
from orchestrator.trials.drift import refuse_other_job


def print_report(plan: Plan, store: StageStore, console: Console, known: Iterable[Chain] = ()) -> None:
    """Write the report's files; print the frontier and where they are. ``known``: chains replayed before."""
    findings, folder = findings_of(plan, store, known), report_folder(plan, store)
    write_report(findings, folder)
    console.print()
    for part in ending(findings):
        console.print(part)
    console.print(f"report   {short(folder / 'report.html')}")


def findings_of(plan: Plan, store: StageStore, known: Iterable[Chain] = ()) -> Findings:
    """What is to be reported. Raises ``InputError`` if it is nothing, or if another job ran under this name."""
    refuse_other_job(plan, store)
    findings = Findings.of(plan, store, known)
    if not findings.points:
        found = f"holds no stage of {plan.job.name} with this configuration"
        raise InputError(Problem("STO002", str(store.root), found, "run the job first"))
    return findings


def report_folder(plan: Plan, store: StageStore) -> Path:
    return job_folder(store.root, plan.job.name) / "report"
