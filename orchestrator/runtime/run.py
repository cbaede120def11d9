"""What the verbs do: run a job, report it, track it, serve its MLflow."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from rich.console import Console

from orchestrator.config import Job, load_job
from orchestrator.errors import InputError, Problem, TrialError
from orchestrator.plan import Plan, build_plan
from orchestrator.report import frontier_table, summary_table, write_report
from orchestrator.report.text import count
from orchestrator.runtime.cluster import concurrent_trials
from orchestrator.runtime.search import is_open, run_trials
from orchestrator.runtime.watch import Watch
from orchestrator.store import StageStore, frontier, job_folder, replay_all, save_job, saved_plans
from orchestrator.tracking import BackgroundTracker, Tracker, frontier_url, ui_command, ui_environment

DONE, FAILED, PARTIAL = 0, 1, 3
TRACKING_DEADLINE_SECONDS = 60.0

_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}


def run_job(path: Path, overrides: tuple[str, ...], root: Path, console: Console) -> int:
    """Train what is missing, record it, report it. Returns the exit code."""
    os.environ.update(_QUIET)
    started = time.time()
    job = checked_job(path, overrides, root)
    store = StageStore(root)
    plan = _prepared_plan(job, store)
    console.print(
        f"{job.name}: {count(len(plan.trials), 'trial')}, {count(len(plan.unique_stages), 'stage')}, "
        f"{sum(trial.steps for trial in plan.trials):,} steps; store {_short(root)}"
    )
    if any(is_open(trial, store) for trial in plan.trials):
        console.print("starting Ray; the first step comes in about half a minute")
    tracker = BackgroundTracker(Tracker(plan, store), console.print)
    tracker.start()
    if frontier(plan, store):
        tracker.notify()
    try:
        code = _train(plan, store, tracker, console, started)
        if frontier(plan, store):
            print_report(plan, store, console)
            tracker.finish(report_folder(plan, store))
    finally:
        delivered = tracker.close(TRACKING_DEADLINE_SECONDS)
    if not delivered:
        console.print(f"MLflow has not got everything; later: stepwise track {path} --store {_short(root)}")
    console.print(f"MLflow   {job.tracking.uri or f'stepwise ui --store {_short(root)}'}")
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
    console.print(frontier_table(points))
    console.print(summary_table(points))
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
    base = f"http://127.0.0.1:{port}"
    print(f"MLflow on {base}, for this machine only; Ctrl-C ends it. The frontier of", flush=True)
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


def _prepared_plan(job: Job, store: StageStore) -> Plan:
    """Tokens are made before the plan, which then counts them instead of estimating."""
    from orchestrator.runtime.data import prepare_data

    plan = build_plan(job, prepare_data(job, store).total_tokens)
    save_job(plan, store)
    return plan


def _train(plan: Plan, store: StageStore, tracker: BackgroundTracker, console: Console, started: float) -> int:
    seen = 0

    def tick() -> None:
        nonlocal seen
        watch.refresh()
        if watch.committed > seen:
            seen = watch.committed
            tracker.notify()

    try:
        with Watch(plan, store, console, started) as watch:
            run_trials(plan, store, tick)
    except TrialError as error:
        console.print(str(error), style="red")
    for chain in replay_all(plan, store):
        if chain.given_up:
            console.print(f"{chain.trial.name} gave up: {chain.given_up.reason}. What was tried:")
            for line in chain.given_up.ladder_tried:
                console.print(f"  {line}", soft_wrap=True)
    return _exit_code(plan, store)


def _exit_code(plan: Plan, store: StageStore) -> int:
    chains = replay_all(plan, store)
    if all(chain.finished for chain in chains):
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
