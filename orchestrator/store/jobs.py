"""The jobs that ran on a store, each as it last ran: for reports, for MLflow, and for plans with counted tokens."""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from orchestrator.config import NAME, ExampleSource, Job, placed
from orchestrator.errors import InputError, Problem, StoreError, first_line
from orchestrator.files import replace_file
from orchestrator.method.stage import Record
from orchestrator.plan import Content, Plan, build_plan, read_chain
from orchestrator.plan.fork import chain_plan
from orchestrator.store.folders import job_folder, read_record
from orchestrator.store.searches import proposals
from orchestrator.store.stages import StageStore
from orchestrator.tasks import make_task


class SavedJob(Record):
    """A resolved job as it last ran, and the CoT tokens of its longest example."""

    model_config = ConfigDict(ser_json_inf_nan="strings")

    job: Job
    total_tokens: int
    read: Content | None = None
    """The content of its examples and its model, whatever their files hold now, and wherever they are."""
    question: str = ""
    """A question of its validation examples, for the card of an exported model. Only a task that is read has one."""
    content: dict[str, Any] = Field(default_factory=dict)
    """The part of ``read`` that an older version saved. Empty for other jobs."""
    chains: tuple[tuple[str, ...], ...] = ()
    """The keys of every trial's stages, as they were planned with that content."""
    added_seeds: tuple[int, ...] = ()
    """The seeds that `stepwise extend` added to those of the job file."""
    chain: tuple[dict[str, Any], ...] = ()
    """The identities of a fork's stages, which its job alone does not determine. Empty for other jobs."""

    @property
    def made_of(self) -> dict[str, Any]:
        """Return what says which examples, and which model, its stages are made of."""
        return self.read.document(self.job) if self.read else self.content

    def plan(self, store: StageStore) -> Plan:
        """Return the plan as it was made.

        For a job that an older version saved, the data is read again. Raises ``InputError``.
        """
        if self.chain:
            return chain_plan(self.job, self.total_tokens, read_chain(self.chain), self.read)
        return build_plan(self.job, self.total_tokens, proposals(self.job, store.root), self.read)


def save_job(plan: Plan, store: StageStore, added_seeds: tuple[int, ...] = ()) -> None:
    """Save the job of a plan whose tokens were counted. Seeds that were added before stay."""
    file = _file(store.root, plan.job.name)
    added = (*saved_added_seeds(plan.job.name, store), *added_seeds)
    chains = tuple(tuple(stage.key for stage in trial.stages) for trial in plan.trials)
    saved = SavedJob(
        job=plan.job,
        total_tokens=plan.total_tokens,
        read=plan.content,
        question=_question(plan.job),
        chains=chains,
        added_seeds=added,
    )
    _write(file, saved)


def check_fork_name(plan: Plan, store: StageStore) -> None:
    """Raise ``InputError`` if a fork's name means other work."""
    before = saved_plan(plan.job.name, store)
    if before and [t.stages for t in before.trials] != [t.stages for t in plan.trials]:
        problem = Problem("FRK001", plan.job.name, "is the name of another job", "give another one with --name")
        raise InputError(problem)


def save_fork(plan: Plan, store: StageStore) -> None:
    """Save a job that is one given chain. Raises ``InputError`` if its name means other work."""
    check_fork_name(plan, store)
    chain = tuple(stage.identity for stage in plan.trials[0].stages)
    saved = SavedJob(
        job=plan.job,
        total_tokens=plan.total_tokens,
        read=plan.content,
        question=_question(plan.job),
        chain=chain,
    )
    _write(_file(store.root, plan.job.name), saved)


def saved_plan(name: str, store: StageStore) -> Plan | None:
    """Return the plan of the job of this name that ran on the store, or None."""
    file = _file(store.root, name)
    return _read(file, store).plan(store) if re.fullmatch(NAME, name) and file.exists() else None


def saved_job(name: str, store: StageStore) -> SavedJob | None:
    """Return a job as it was saved, or None. No plan is made of it."""
    file = _file(store.root, name)
    return _read(file, store) if file.exists() else None


def saved_names(store: StageStore) -> list[str]:
    """Return the names of all jobs that ran on a store."""
    try:
        with os.scandir(store.root / "jobs") as folders:
            return sorted(folder.name for folder in folders if _file(store.root, folder.name).exists())
    except FileNotFoundError:
        return []


def jobs_like(name: str, store: StageStore) -> str:
    """Return a hint for a wrong name: the saved job that it is close to, or all saved jobs."""
    names = saved_names(store)
    near = difflib.get_close_matches(name, names, 1)
    return f'did you mean "{near[0]}"?' if near else f"jobs here: {', '.join(names) or 'none'}"


def is_fork(name: str, store: StageStore) -> bool:
    """Return whether a saved job is one given chain."""
    file = _file(store.root, name)
    return file.exists() and bool(_read(file, store).chain)


def saved_added_seeds(name: str, store: StageStore) -> tuple[int, ...]:
    """Return the seeds that were added to a job's own."""
    file = _file(store.root, name)
    return _read(file, store).added_seeds if file.exists() else ()


def saved_plans(store: StageStore) -> list[Plan]:
    """Return the plans of all jobs that ran on a store, by name, without those whose data cannot be read from here."""
    plans = []
    for name in saved_names(store):
        saved = _read(_file(store.root, name), store)
        with suppress(InputError):
            plans.append(saved.plan(store))
    return plans


def plan_for(job: Job, store: StageStore, total_tokens: int | None = None) -> Plan:
    """Return the plan of a job on this store, with added seeds and Optuna's proposals.

    Without ``total_tokens``, the plan takes the count of the job's last run here, else an estimate.
    """
    saved = saved_job(job.name, store)
    if saved is None:
        return build_plan(job, total_tokens, proposals(job, store.root))
    job = job.model_copy(update={"seeds": tuple(dict.fromkeys((*job.seeds, *saved.added_seeds)))})
    content = _content(job, saved)
    if total_tokens is None and saved.made_of == content.document(job):
        total_tokens = saved.total_tokens
    return build_plan(job, total_tokens, proposals(job, store.root), content)


def _content(job: Job, saved: SavedJob) -> Content:
    """Return what the job's data and model hold, as it was saved if they are gone. Raises ``InputError``."""
    try:
        return Content.of(job)
    except InputError:
        if saved.read is None or (saved.job.task, saved.job.model) != (job.task, job.model):
            raise
        return saved.read


def _question(job: Job) -> str:
    if not isinstance(job.task, ExampleSource):
        return ""
    return next(iter(make_task(job.task).examples("validation"))).question


def _write(file: Path, saved: SavedJob) -> None:
    replace_file(file, saved.model_dump_json(indent=1))


def _file(root: Path, name: str) -> Path:
    return job_folder(root, name, "job.json")


def _read(file: Path, store: StageStore) -> SavedJob:
    try:
        saved = SavedJob.model_validate_json(read_record(store.root, file))
        # an older version saved paths as they were typed: from the folder that a command runs in
        return saved if saved.read else saved.model_copy(update={"job": placed(saved.job)})
    except OSError as error:
        raise StoreError(Problem("STO005", str(file), f"cannot be read: {error.strerror}", "check it")) from None
    except ValidationError as error:
        found = f"not a saved job: {first_line(error)}"
        raise StoreError(Problem("STO005", str(file), found, "delete it; the next run writes it")) from None
