"""Brings a job's records in MLflow into line with the store."""

from __future__ import annotations

from rich.console import Console

from orchestrator.commands.report import findings_of, report_folder
from orchestrator.commands.run import DONE
from orchestrator.labels import count
from orchestrator.plan import Plan
from orchestrator.report import write_report
from orchestrator.shown import command
from orchestrator.store import StageStore
from orchestrator.tracking import Tracker, unused_uri


def track_job(plan: Plan, store: StageStore, console: Console) -> int:
    """Deliver what the store holds to MLflow, with a fresh report."""
    findings, folder, unused = findings_of(plan, store), report_folder(plan, store), unused_uri(plan.job.tracking.uri)
    tracker = Tracker(plan, store)
    tracker.sync()
    write_report(findings, folder)
    tracker.finish(folder)
    tracker.end()
    stages = count(len({point.stage_key for point in findings.points}), "stage")
    console.print(f"{stages} of {plan.job.name} are in {tracker.page() or tracker.uri}")
    if plan.job.tracking.uri is None:
        console.print(f"to see them: {command('ui', '--store', store.root)}")
    if unused:
        console.print(unused)
    return DONE
