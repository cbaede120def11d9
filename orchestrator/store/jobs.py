"""What was run on a store: each job as it last ran, for reports and MLflow, and for plans that count."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from orchestrator.config import Job
from orchestrator.errors import Problem, StoreError
from orchestrator.method.stage import Record
from orchestrator.plan import Plan, build_plan
from orchestrator.store.stages import StageStore


class SavedJob(Record):
    """A resolved job and the CoT tokens that were counted on its data."""

    job: Job
    total_tokens: int


def save_job(plan: Plan, store: StageStore) -> None:
    """Remember the job of a plan whose tokens were counted."""
    file = _file(store.root, plan.job.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(SavedJob(job=plan.job, total_tokens=plan.total_tokens).model_dump_json(indent=1))
    os.replace(partial, file)


def saved_plans(store: StageStore) -> list[Plan]:
    """The plans of all jobs that were run on a store, by name."""
    saved = [_read(file) for file in sorted(store.root.glob("jobs/*/job.json"))]
    return [build_plan(entry.job, entry.total_tokens) for entry in saved]


def plan_for(job: Job, store: StageStore) -> Plan:
    """The plan of a job, with the tokens counted when it ran on this store; else with an estimate."""
    file = _file(store.root, job.name)
    if file.exists():
        saved = _read(file)
        if (saved.job.task, saved.job.model) == (job.task, job.model):
            return build_plan(job, saved.total_tokens)
    return build_plan(job)


def job_folder(root: Path, name: str) -> Path:
    """Where the report and the progress of a job are."""
    return root / "jobs" / name


def _file(root: Path, name: str) -> Path:
    return job_folder(root, name) / "job.json"


def _read(file: Path) -> SavedJob:
    try:
        return SavedJob.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        found = f"not a saved job: {str(error).splitlines()[0]}"
        raise StoreError(Problem("STO005", str(file), found, "delete it; the next run writes it")) from None
