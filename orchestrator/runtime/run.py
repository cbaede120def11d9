"""What the verbs do: run a job, report it, track it, serve its MLflow."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from itertools import count as count_up
from itertools import islice
from pathlib import Path

from rich.console import Console

from orchestrator.config import Job, load_job, parse_setting
from orchestrator.errors import InputError, Problem, TrialError
from orchestrator.fork import fork_plan
from orchestrator.plan import Plan, PlannedStage, Trial, build_plan
from orchestrator.report import frontier_table, standings_table, summary_table, write_report
from orchestrator.report.text import count
from orchestrator.runtime.cluster import concurrent_trials
from orchestrator.runtime.drift import refuse_drift
from orchestrator.runtime.order import open_trials
from orchestrator.runtime.search import run_trials
from orchestrator.runtime.watch import Watch
from orchestrator.search import best_line, of_configuration, standings
from orchestrator.store import (
    StageStore,
    frontier,
    is_fork,
    job_folder,
    plan_for,
    pruned_trials,
    replay_all,
    save_fork,
    save_job,
    saved_added_seeds,
    saved_plan,
    saved_plans,
    sweep,
)
from orchestrator.tracking import BackgroundTracker, Tracker, frontier_url, ui_command, ui_environment

DONE, FAILED, PARTIAL = 0, 1, 3
TRACKING_DEADLINE_SECONDS = 60.0

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def run_job(path: Path, overrides: tuple[str, ...], root: Path, console: Console, *, accept_drift: bool = False) -> int:
    """Train what is missing, record it, report it. Returns the exit code."""
    os.environ.update(_QUIET)
    store = StageStore(root)
    if plan := named_plan(path, overrides, store):
        concurrent_trials(plan.job.resources)
        _check_writable(root)
        refuse_drift(plan, store, accept=accept_drift)
    else:
        plan = _prepared_plan(checked_job(path, overrides, root), store)
        refuse_drift(plan, store, accept=accept_drift)
        save_job(plan, store)
    return _run(plan, path, store, console)


def named_plan(path: Path, overrides: Sequence[str], store: StageStore) -> Plan | None:
    """The plan of a saved job, if no file but a job of this name is there."""
    plan = None if overrides else saved_plan(str(path), store)
    return plan if plan and not path.exists() else None


def extend_job(path: Path, seeds: int, root: Path, console: Console, *, dry_run: bool) -> Plan | int:
    """Add seeds to a job that is finished and run them. Returns the exit code, or the plan of a dry run.

    An extension that was interrupted is continued before another one is begun.
    """
    os.environ.update(_QUIET)
    store = StageStore(root)
    plan = named_plan(path, (), store) or _prepared_plan(checked_job(path, (), root), store)
    if is_fork(plan.job.name, store):
        raise InputError(Problem("RUN004", plan.job.name, "is a fork, one chain", "extend the job it left"))
    added = saved_added_seeds(plan.job.name, store)
    unfinished = {trial.seed for trial in open_trials(plan, store)}
    if plan.to_propose or not unfinished <= set(added):
        raise InputError(Problem("RUN003", plan.job.name, "is not finished", f"`stepwise run {path}` first"))
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
    return _run(plan, path, store, console)


def fork_stage(
    prefix: str, settings: Sequence[str], name: str | None, root: Path, console: Console, *, dry_run: bool
) -> Plan | int:
    """Start a trial from a committed stage. Returns the exit code, or the plan of a dry run."""
    os.environ.update(_QUIET)
    store = StageStore(root)
    trial, after = _stage_of(prefix, store)
    plan = fork_plan(trial, after, tuple(parse_setting(setting) for setting in settings), name)
    concurrent_trials(plan.job.resources)
    _check_writable(root)
    if dry_run:
        return plan
    save_fork(plan, store)
    console.print(f"fork of {trial.job.name}, {trial.name}, after stage {after.index} ({after.key})")
    return _run(plan, Path(plan.job.name), store, console)


def _stage_of(prefix: str, store: StageStore) -> tuple[Trial, PlannedStage]:
    """The committed stage whose key begins so, in a trial that has it: a stepwise trial rather than a baseline."""
    keys = [key for key in store.stage_keys() if key.startswith(prefix) and store.read(key)] if prefix else []
    if len(keys) != 1:
        found = f"is the beginning of {len(keys)} stage keys" if keys else "is the key of no committed stage"
        raise InputError(Problem("FRK004", prefix, found, "`stepwise report` and `plan --json` name the keys"))
    places = [
        (trial, stage)
        for plan in saved_plans(store)
        for trial in plan.trials
        for stage in trial.stages
        if stage.key == keys[0]
    ]
    manifest = store.read(keys[0])
    if not places or manifest is None or manifest.verdict != "good":
        found = "belongs to no saved job" if not places else "did not end well"
        raise InputError(Problem("FRK005", keys[0], found, "name another stage"))
    return min(places, key=lambda place: place[0].method != "stepwise")


def _run(plan: Plan, path: Path, store: StageStore, console: Console) -> int:
    started, job = time.time(), plan.job
    sweep(store.root)
    console.print(
        f"{job.name}: {count(len(plan.trials), 'trial')}, {count(len(plan.unique_stages), 'stage')}, "
        f"{sum(trial.steps for trial in plan.trials):,} steps; store {_short(store.root)}"
    )
    if plan.to_propose:
        console.print(f"{count(plan.to_propose, 'configuration')} more to be proposed")
    if open_trials(plan, store) or plan.to_propose:
        console.print("starting Ray; the first step comes in about half a minute")
    tracker = BackgroundTracker(Tracker(plan, store), console.print)
    tracker.start()
    if frontier(plan, store):
        tracker.notify()
    try:
        plan, code = _train(plan, store, tracker, console, started)
        if frontier(plan, store):
            print_report(plan, store, console)
            tracker.finish(report_folder(plan, store))
    finally:
        if not tracker.close(TRACKING_DEADLINE_SECONDS):
            console.print(f"MLflow has not got everything; later: stepwise track {path} --store {_short(store.root)}")
    console.print(f"MLflow   {job.tracking.uri or f'stepwise ui --store {_short(store.root)}'}")
    return code


def checked_job(path: Path, overrides: tuple[str, ...], root: Path) -> Job:
    """The job, if it can run here; nothing is written. Raises ``InputError``."""
    job = load_job(path, overrides)
    build_plan(job)
    concurrent_trials(job.resources)
    _check_writable(root)
    return job


def print_report(plan: Plan, store: StageStore, console: Console) -> None:
    """Write the report's files; print the frontier and where they are."""
    points = frontier(plan, store)
    if not points:
        found = f"holds no stage of {plan.job.name} with this configuration"
        raise InputError(Problem("STO002", str(store.root), found, "run the job first"))
    folder = report_folder(plan, store)
    write_report(plan, store, folder)
    console.print()
    pruned = pruned_trials(plan, store.root)
    ranked = standings(plan, points, pruned)
    shown = {trial.name for trial in (of_configuration(plan, ranked[0].settings) if ranked else plan).trials}
    console.print(frontier_table(point for point in points if point.trial in shown))
    console.print(summary_table(points, pruned))
    if plan.job.search:
        console.print(standings_table(plan.job.search, ranked))
        console.print(best_line(plan, ranked))
    console.print(f"report   {_short(folder / 'report.html')}")


def report_folder(plan: Plan, store: StageStore) -> Path:
    return job_folder(store.root, plan.job.name) / "report"


def track_job(plan: Plan, store: StageStore, console: Console) -> int:
    """Deliver what the store holds to MLflow, with a fresh report."""
    if not frontier(plan, store):
        found = f"holds no stage of {plan.job.name} with this configuration"
        raise InputError(Problem("STO002", str(store.root), found, "run the job first"))
    tracker = Tracker(plan, store)
    tracker.sync()
    folder = report_folder(plan, store)
    write_report(plan, store, folder)
    tracker.finish(folder)
    tracker.end()
    console.print(f"{len(frontier(plan, store))} stages of {plan.job.name} are in {tracker.uri}")
    return DONE


def serve_mlflow(root: Path, port: int) -> int:
    """Run the MLflow server on the store until it is interrupted."""
    plans = saved_plans(StageStore(root))
    if not plans:
        raise InputError(Problem("STO002", str(root), "no job ran on this store", "run a job first"))
    _check_free(port)
    base = f"http://127.0.0.1:{port}"
    print(f"MLflow on {base} for this machine only; Ctrl-C ends it. The frontier of", flush=True)
    for plan in plans:
        if plan.job.tracking.uri is None:
            page = frontier_url(base, Tracker(plan, StageStore(root)).experiment_id())
            print(f"  {plan.job.name}: {page}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen(  # noqa: S603
        ui_command(root, port), env={**os.environ, **ui_environment()}, start_new_session=True
    )
    try:
        return server.wait()
    except KeyboardInterrupt:
        return DONE
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise InputError(Problem("CLI004", f"127.0.0.1:{port}", "is in use", "name another --port")) from None


def _prepared_plan(job: Job, store: StageStore) -> Plan:
    """Tokens are made before the plan, which then counts them instead of estimating."""
    from orchestrator.runtime.data import prepare_data

    return plan_for(job, store, prepare_data(job, store).total_tokens)


def _train(
    plan: Plan, store: StageStore, tracker: BackgroundTracker, console: Console, started: float
) -> tuple[Plan, int]:
    """Run the trials; return the plan with what was proposed meanwhile, and the exit code."""
    seen = 0

    def tick() -> None:
        nonlocal seen
        if watch.plan.to_propose:
            watch.plan = plan_for(plan.job, store, plan.total_tokens)
            tracker.follow(watch.plan)
        watch.refresh()
        if watch.committed > seen:
            seen = watch.committed
            tracker.notify()

    try:
        with Watch(plan, store, console, started) as watch:
            run_trials(plan, store, tick)
    except TrialError as error:
        console.print(str(error), style="red")
    for chain in replay_all(watch.plan, store):
        if chain.given_up:
            console.print(f"{chain.trial.name} gave up: {chain.given_up.reason}. What was tried:")
            for line in chain.given_up.ladder_tried:
                console.print(f"  {line}", soft_wrap=True)
    return watch.plan, _exit_code(watch.plan, store)


def _exit_code(plan: Plan, store: StageStore) -> int:
    pruned = pruned_trials(plan, store.root)
    chains = replay_all(plan, store)
    if not plan.to_propose and all(chain.finished or chain.trial.name in pruned for chain in chains):
        return DONE
    return PARTIAL if any(chain.standing for chain in chains) else FAILED


def _check_writable(root: Path) -> None:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if not existing.is_dir():
        raise InputError(Problem("STO003", str(existing), "is a file", "name a folder with --store"))
    if not os.access(existing, os.W_OK):
        raise InputError(Problem("STO004", str(existing), "cannot be written", "name another folder with --store"))


def _short(path: Path) -> str:
    """As a person would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
