"""Records of what a search decided while it ran: Optuna's proposals, and the trials that pruning stopped."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from orchestrator.config import Job
from orchestrator.errors import Problem, StoreError
from orchestrator.files import replace_file
from orchestrator.identity import digest
from orchestrator.method.stage import Record
from orchestrator.plan import Plan, Trial
from orchestrator.plan.grid import Settings
from orchestrator.store.folders import job_folder, read_record

_NOT_SEARCHED = {"name", "seeds", "methods", "icot_kd", "resources", "tracking"}


def proposals(job: Job, root: Path) -> tuple[Settings, ...]:
    """Return what Optuna has proposed for a job so far, in order. A job with another search has other proposals."""
    if job.search is None or job.search.type != "optuna":
        return ()
    file = _proposals_file(job, root)
    try:
        recorded = json.loads(read_record(root, file))
        return tuple(tuple((str(field), value) for field, value in settings) for settings in recorded)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        problem = Problem("STO006", str(file), f"not a list of proposals: {error}", "delete it to search anew")
        raise StoreError(problem) from None


def record_proposal(job: Job, root: Path, settings: Settings) -> None:
    """Append a proposal to the record, before anything is trained for it."""
    replace_file(_proposals_file(job, root), json.dumps([*proposals(job, root), settings], indent=1))


class Pruned(Record):
    """A trial that was stopped because other configurations did better."""

    chain: str
    """The key of the last stage that the trial was planned to have."""
    reason: str


def record_pruned(trial: Trial, root: Path, pruned: Pruned) -> None:
    """Record that a trial stops here, so that the next run does not continue it."""
    replace_file(_pruned_file(trial, root), pruned.model_dump_json(indent=1))


def pruned_trials(plan: Plan, root: Path) -> dict[str, Pruned]:
    """Return the pruned trials of a plan by name. A job that does not prune continues them, so it has none."""
    if plan.job.search is None or not plan.job.search.prune:
        return {}
    found = {trial.name: _pruned(trial, root) for trial in plan.trials if trial.method == "stepwise"}
    return {name: pruned for name, pruned in found.items() if pruned}


def _pruned(trial: Trial, root: Path) -> Pruned | None:
    """Return the record of a trial, unless it is of another chain with the same name."""
    try:
        pruned = Pruned.model_validate_json(read_record(root, _pruned_file(trial, root)))
    except (OSError, ValidationError):
        return None
    return pruned if pruned.chain == trial.stages[-1].key else None


def _pruned_file(trial: Trial, root: Path) -> Path:
    return job_folder(root, trial.job.name, "pruned", f"{trial.name}.json")


def _proposals_file(job: Job, root: Path) -> Path:
    document = job.model_dump(mode="json", exclude=_NOT_SEARCHED)
    searched = {key: value for key, value in document["search"].items() if key not in ("configurations", "prune")}
    return job_folder(root, job.name) / f"proposals-{digest(document | {'search': searched})[:8]}.json"
