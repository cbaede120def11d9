"""Starts a trial from a committed stage, with other fields from there on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from orchestrator.commands.given import QUIET, check_writable
from orchestrator.commands.mirroring import Mirroring
from orchestrator.commands.run import run_plan
from orchestrator.config import parse_setting
from orchestrator.errors import InputError, Problem
from orchestrator.plan import Plan, PlannedStage, Trial
from orchestrator.plan.fork import fork_plan
from orchestrator.ray.placement import concurrent_trials
from orchestrator.results.find import find_stage
from orchestrator.store import StageStore, check_fork_name, save_fork
from orchestrator.trials.drift import refuse_drift
from orchestrator.trials.running import RunningJob


def fork_stage(
    prefix: str,
    settings: Sequence[str],
    name: str | None,
    root: Path,
    console: Console,
    *,
    dry_run: bool,
    accept_drift: bool = False,
    mirror_url: str | None = None,
) -> Plan | int:
    """Start a trial from a committed stage. Returns the exit code, or the plan of a dry run."""
    os.environ.update(QUIET)
    store = StageStore(root)
    mirroring = Mirroring(mirror_url, store, console)
    trial, after = _stage_of(prefix, store)
    plan = fork_plan(trial, after, tuple(parse_setting(setting) for setting in settings), name)
    concurrent_trials(plan.job.resources)
    check_writable(root)
    check_fork_name(plan, store)
    if dry_run:
        return plan
    running = RunningJob(plan, store)
    refuse_drift(running, accept=accept_drift, joins=True)
    save_fork(plan, store)
    console.print(f"fork of {trial.job.name}, {trial.name}, after stage {after.index} ({after.key})")
    return run_plan(running, console, mirroring)


def _stage_of(name: str, store: StageStore) -> tuple[Trial, PlannedStage]:
    """The stage of this name, if a chain can be planned on from it."""
    place = find_stage(name, store)
    if place.tried.manifest.verdict != "good":
        raise InputError(Problem("FRK005", name, f"ended {place.tried.manifest.verdict}", "name another stage"))
    if place.tried.stage not in place.trial.stages:
        found = "was trained after a restart, otherwise than its job says, which a fork cannot go on with"
        raise InputError(Problem("FRK009", name, found, "name a stage from before the trial's first restart"))
    return place.trial, place.tried.stage
