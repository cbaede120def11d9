"""Adds seeds to a job that is finished, and runs them."""

from __future__ import annotations

import os
from itertools import count as count_up
from itertools import islice
from pathlib import Path

from rich.console import Console

from orchestrator.commands.given import QUIET, whole_plan
from orchestrator.commands.mirroring import Mirroring
from orchestrator.commands.run import run_plan
from orchestrator.errors import InputError, Problem
from orchestrator.plan import Plan
from orchestrator.shown import command
from orchestrator.store import StageStore, is_fork, plan_for, save_job, saved_added_seeds
from orchestrator.trials.drift import refuse_drift
from orchestrator.trials.running import RunningJob


def extend_job(
    path: Path,
    seeds: int,
    root: Path,
    console: Console,
    *,
    dry_run: bool,
    accept_drift: bool = False,
    mirror_url: str | None = None,
) -> Plan | int:
    """Add seeds to a job that is finished and run them. Returns the exit code, or the plan of a dry run.

    An extension that was interrupted is continued before another one is begun.
    """
    os.environ.update(QUIET)
    store = StageStore(root)
    mirroring = Mirroring(None if dry_run else mirror_url, store, console)
    plan = whole_plan(path, (), store, mirroring, extends=True)
    if is_fork(plan.job.name, store):
        raise InputError(Problem("RUN004", plan.job.name, "is a fork, one chain", "extend the job it left"))
    running = RunningJob(plan, store)
    if not (dry_run and accept_drift):  # a dry run records nothing
        refuse_drift(running, accept=accept_drift, joins=True)
    added = saved_added_seeds(plan.job.name, store)
    unfinished = {chain.trial.seed for chain in running.open_chains}
    if plan.to_propose or not unfinished <= set(added):
        raise InputError(Problem("RUN003", plan.job.name, "is not finished", f"`{command('run', path)}` first"))
    new: tuple[int, ...] = ()
    if unfinished:
        console.print("the seeds added before are not finished; they come first, nothing is added")
    else:
        new = tuple(islice((seed for seed in count_up() if seed not in plan.job.seeds), seeds))
        longer = plan.job.model_copy(update={"seeds": (*plan.job.seeds, *new)})
        plan = plan_for(longer, store, plan.total_tokens)
    if dry_run:
        return plan
    save_job(plan, store, new)
    return run_plan(RunningJob(plan, store, running.chains), console, mirroring)
