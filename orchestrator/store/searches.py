"""What a search decided while it ran: the configurations Optuna proposed, the trials that were stopped."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.config import Job
from orchestrator.errors import Problem, StoreError
from orchestrator.identity import digest
from orchestrator.space import Settings
from orchestrator.store.folders import job_folder, replace_file

_NOT_SEARCHED = {"name", "seeds", "methods", "resources", "tracking"}


def proposals(job: Job, root: Path) -> tuple[Settings, ...]:
    """What Optuna has proposed for a job so far, in order. A job that searches something else has its own."""
    if job.search is None or job.search.type != "optuna":
        return ()
    file = _proposals_file(job, root)
    try:
        recorded = json.loads(file.read_text())
        return tuple(tuple((str(field), value) for field, value in settings) for settings in recorded)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        problem = Problem("STO006", str(file), f"not a list of proposals: {error}", "delete it to search anew")
        raise StoreError(problem) from None


def record_proposal(job: Job, root: Path, settings: Settings) -> None:
    """Remember a proposal before anything is trained for it."""
    replace_file(_proposals_file(job, root), json.dumps([*proposals(job, root), settings], indent=1))


def _proposals_file(job: Job, root: Path) -> Path:
    document = job.model_dump(mode="json", exclude=_NOT_SEARCHED)
    searched = {key: value for key, value in document["search"].items() if key not in ("configurations", "prune")}
    return job_folder(root, job.name) / f"proposals-{digest(document | {'search': searched})[:8]}.json"
