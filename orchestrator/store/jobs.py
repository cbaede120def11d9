"""What was run on a store: each job as it last ran, for reports and MLflow, and for plans that count."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, ValidationError

from orchestrator.config import Job
from orchestrator.errors import Problem, StoreError
from orchestrator.method.stage import Record
from orchestrator.plan import Plan, build_plan
from orchestrator.store.folders import job_folder, replace_file
from orchestrator.store.searches import proposals
from orchestrator.store.stages import StageStore


class SavedJob(Record):
    """A resolved job as it last ran, and the CoT tokens that were counted on its data."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    job: Job
    total_tokens: int
    added_seeds: tuple[int, ...] = ()
    """Seeds that `stepwise extend` added to those of the job file."""

    def plan(self, store: StageStore) -> Plan:
        return build_plan(self.job, self.total_tokens, proposals(self.job, store.root))


def save_job(plan: Plan, store: StageStore, added_seeds: tuple[int, ...] = ()) -> None:
    """Remember the job of a plan whose tokens were counted; seeds once added stay."""
    file = _file(store.root, plan.job.name)
    added = (*_added_seeds(store, plan.job.name), *added_seeds)
    saved = SavedJob(job=plan.job, total_tokens=plan.total_tokens, added_seeds=added)
    replace_file(file, saved.model_dump_json(indent=1))


def saved_plans(store: StageStore) -> list[Plan]:
    """The plans of all jobs that were run on a store, by name."""
    return [_read(file).plan(store) for file in sorted(store.root.glob("jobs/*/job.json"))]


def plan_for(job: Job, store: StageStore, total_tokens: int | None = None) -> Plan:
    """The plan of a job on this store: with added seeds and Optuna's proposals.

    Without ``total_tokens``, as counted when it ran on this store; else with an estimate.
    """
    file = _file(store.root, job.name)
    saved = _read(file) if file.exists() else None
    if saved:
        job = job.model_copy(update={"seeds": tuple(dict.fromkeys((*job.seeds, *saved.added_seeds)))})
        if total_tokens is None and (saved.job.task, saved.job.model) == (job.task, job.model):
            total_tokens = saved.total_tokens
    return build_plan(job, total_tokens, proposals(job, store.root))


def _added_seeds(store: StageStore, name: str) -> tuple[int, ...]:
    file = _file(store.root, name)
    return _read(file).added_seeds if file.exists() else ()


def _file(root: Path, name: str) -> Path:
    return job_folder(root, name) / "job.json"


def _read(file: Path) -> SavedJob:
    try:
        return SavedJob.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        found = f"not a saved job: {str(error).splitlines()[0]}"
        raise StoreError(Problem("STO005", str(file), found, "delete it; the next run writes it")) from None
