"""A job as it is given to a command, by its file or its name: checked, with its plan."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from orchestrator.commands.mirroring import Mirroring
from orchestrator.config import NAME, Job, changed_job, load_job
from orchestrator.errors import InputError, Problem
from orchestrator.plan import Plan, configured_jobs
from orchestrator.ray.joined import Attachment, check_address
from orchestrator.ray.local import socket_folder
from orchestrator.ray.placement import concurrent_trials
from orchestrator.store import StageStore, is_fork, jobs_like, plan_for, saved_job, saved_plan
from orchestrator.trials.drift import refuse_other_origin
from orchestrator.trials.running import RunningJob

FOLDERS = ("stages", "jobs", "data", "ray")
"""Of a store: what a run writes into."""


QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def whole_plan(
    path: Path,
    overrides: tuple[str, ...],
    store: StageStore,
    mirroring: Mirroring,
    at: Attachment | None = None,
    *,
    extends: bool = False,
) -> Plan:
    """Return the plan of a job's file or name, once what the mirror holds of it is here. Raises ``InputError``.

    A saved job with nothing left to train is planned as it was remembered, unless the command ``extends`` it. With
    overrides it is another job under its name.
    """
    if is_name(path):
        check_writable(store.root)
        mirroring.bring_records(str(path))
        if overrides and (saved := saved_job(str(path), store)) and not saved.chain:
            job = changed_job(saved.job, overrides, str(path))
            check_runnable(job, store.root, at)
            return _brought(_prepared_plan(job, store), mirroring)
    if plan := named_plan(path, overrides, store):
        check_room(plan.job, at)
        mirroring.bring_stages(plan)
        return _with_its_data(plan, store) if extends or RunningJob(plan, store).left else plan
    job = checked_job(path, overrides, store.root, at)
    mirroring.bring_records(job.name)
    return _brought(_prepared_plan(job, store), mirroring)


def _brought(plan: Plan, mirroring: Mirroring) -> Plan:
    """Bring the stages of a plan that only the mirror holds. Return the plan."""
    mirroring.bring_stages(plan)
    return plan


def _with_its_data(plan: Plan, store: StageStore) -> Plan:
    """The plan of a saved job that is to train, with its data and model as they are now. Raises ``InputError``."""
    if not is_fork(plan.job.name, store):
        return _prepared_plan(plan.job, store)
    refuse_other_origin(plan)
    return plan


def tried_out(path: Path, overrides: Sequence[str], max_steps: int) -> list[str]:
    """The overrides that make a job of another's first steps, with a folder, report and experiment of its own."""
    name = load_job(path, overrides).name
    return [*overrides, f"max_steps={max_steps}", f"name={name[:40]}-{max_steps}-steps"]


def is_name(path: Path) -> bool:
    """Return whether a job is given by its name, not by its file."""
    return bool(re.fullmatch(NAME, str(path))) and path.suffix != ".toml" and not path.exists()


def named_plan(path: Path, overrides: Sequence[str], store: StageStore) -> Plan | None:
    """The plan of a saved job, if no file but a job of this name is there.

    Raises ``InputError`` for a name that is no job's, and for overrides, which are of files.
    """
    if not is_name(path):
        return None
    plan = saved_plan(str(path), store)
    if plan and overrides:
        raise InputError(Problem("RUN007", str(path), "is a job, and overrides change files", "name its file"))
    if plan is None and (not path.suffix or any(store.root.glob("jobs/*/job.json"))):
        found = f"is no job of {short(store.root)}, nor a file"
        raise InputError(Problem("STO002", str(path), found, f"{jobs_like(str(path), store)}; or give a job's file"))
    return plan


def checked_job(path: Path, overrides: tuple[str, ...], root: Path, at: Attachment | None = None) -> Job:
    """The job, if it can run here; nothing is written. Raises ``InputError``."""
    job = load_job(path, overrides)
    check_runnable(job, root, at)
    return job


def check_runnable(job: Job, root: Path, at: Attachment | None = None) -> None:
    """Raise ``InputError`` if a job cannot run here; write nothing."""
    configured_jobs(job)
    check_room(job, at)
    check_writable(root)


def check_room(job: Job, at: Attachment | None) -> None:
    """Raise ``InputError`` if a trial cannot fit this machine. A running Ray is asked once it is joined."""
    if at:
        check_address(at)
    else:
        concurrent_trials(job.resources)
        with socket_folder():  # can be had, or is refused
            pass


def _prepared_plan(job: Job, store: StageStore) -> Plan:
    """Tokens are made before the plan, which then counts them instead of estimating."""
    from orchestrator.trials.data import prepare_data

    return plan_for(job, store, prepare_data(job, store).total_tokens)


def check_writable(root: Path) -> None:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if not existing.is_dir():
        raise InputError(Problem("STO003", str(existing), "is a file", "name a folder with --store"))
    if not os.statvfs(existing).f_blocks:  # /proc and /sys call themselves writable
        found = f"cannot be made: {existing} is no place for files"
        raise InputError(Problem("STO003", str(root), found, "name another folder with --store"))
    if existing == root and root.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise InputError(Problem("STO008", str(root), "can be written by everybody here", f"chmod o-w {root}"))
    for folder in (existing, *(root / name for name in FOLDERS)):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            fix = "give yourself write access, or name another folder with --store"
            raise InputError(Problem("STO004", str(folder), "cannot be written", fix))


def short(path: Path) -> str:
    """As a person would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
