"""Many trials without training: planning, committing, looking at and tracking 1,000 trials of 20 stages each.

The stages are committed by the product's store, with all its fsyncs, but hold no weights. MLflow is an SQLite file, and
gets 50 of the trials. All but commits are CPU seconds, so that a busy machine disturbs them less.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import STEPWISE, Figure, arguments, console, finish
from made_up import fill, metrics
from rich.console import Console

from orchestrator.config import Job
from orchestrator.plan import Plan, build_plan
from orchestrator.report.terminal.live import Watch
from orchestrator.results.frontier import frontier
from orchestrator.results.state import job_state
from orchestrator.store import StageStore, save_job
from orchestrator.store.fsck import check_store
from orchestrator.tracking import Tracker
from orchestrator.trials.running import RunningJob

STAGES, LOSSES = 20, 10


def job_of(trials: int) -> Job:
    """A search of so many trials, 20 stages each, no two stages alike."""
    schedule = {"tokens_per_stage": 2, "stage_steps": 100, "pretrain_steps": 100, "consolidation_stages": 6}
    return Job.model_validate(
        {
            "name": "many",
            "methods": ["stepwise"],
            "seeds": list(range(trials // 5)),
            "task": {"digits": [3, 3]},
            "schedule": schedule,
            "search": {"type": "grid", "space": {"training.learning_rate": [1e-3, 5e-4, 2e-4, 1e-4, 5e-5]}},
        }
    )


def timed(work: Callable[[], object], repetitions: int = 1) -> tuple[float, ...]:
    """CPU seconds of each call, all threads together."""
    seconds = []
    for _ in range(repetitions):
        gc.collect()
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return tuple(seconds)


def refreshes(plan: Plan, store: StageStore, repetitions: int) -> tuple[float, ...]:
    """Seconds of each look of the live table, while one stage more is committed between two."""
    waiting = iter(plan.trials)
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, height=50)
    with Watch(RunningJob(plan, store), screen, time.time()) as watch:
        watch.refresh()
        seconds: tuple[float, ...] = ()
        for _ in range(repetitions):
            trial = next(waiting)
            attempt = store.begin(trial.stages[-1].key)
            store.commit(trial.stages[-1], attempt, "good", metrics(trial, trial.stages[-1], LOSSES))
            seconds += timed(watch.refresh)
        return seconds


def tracked(trials: int, folder: Path) -> tuple[int, float, float]:
    """Points that MLflow got, seconds that took, and seconds to see that nothing is new."""
    plan, store = build_plan(job_of(trials)), StageStore(folder)
    fill(plan.trials, folder, STAGES - 1, LOSSES)
    tracker = Tracker(plan, store)
    tracker.experiment_id()
    (first,), (again,) = timed(tracker.sync), timed(tracker.sync)
    return sum(len(run.sent) for run in tracker._runs.values()), first, again


def command(*words: object) -> tuple[float, float]:
    """CPU seconds and peak memory in GiB of ``stepwise``."""
    process = subprocess.Popen([STEPWISE, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1 << 20)


def main() -> None:
    quick = arguments(__doc__).quick
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    trials, repetitions = (50, 2) if quick else (1_000, 3)
    job = job_of(trials)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "store"
        plan, store = build_plan(job), StageStore(root)
        assert len(plan.unique_stages) == trials * STAGES
        planned = timed(lambda: build_plan(job), repetitions)
        began = time.perf_counter()
        fill(plan.trials, root, STAGES - 1, LOSSES)
        filled = time.perf_counter() - began
        save_job(plan, store)
        cold = timed(lambda: job_state("many", StageStore(root)), repetitions)
        warm = timed(lambda: job_state("many", store), repetitions + 1)[1:]
        points = timed(lambda: frontier(plan, store), repetitions)
        looks = refreshes(plan, store, 10)
        status, status_gib = command("status", "many", "--store", root, "--json")
        checked = timed(lambda: check_store(store, repair=False))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
        rows, first, again = tracked(max(10, trials // 20), Path(name) / "tracked")
    console.print(f"{trials:,} trials, {trials * STAGES:,} stages")
    console.print(f"MLflow got {rows:,} points in {first:.1f} CPU seconds; to see that it has them took {again:.2f}")
    finish(
        "scale",
        Figure("plan of all trials", planned, unit="seconds"),
        Figure("state of the search, nothing read yet", cold, unit="seconds"),
        Figure("state of the search again", warm, unit="seconds"),
        Figure("frontier", points, unit="seconds"),
        Figure("a look of the live table", looks, unit="seconds"),
        Figure("stepwise status", (status,), unit="seconds"),
        Figure("its peak memory", (status_gib,), unit="gib"),
        Figure("a commit, of eight at a time (wall)", (filled / trials / (STAGES - 1),), unit="seconds"),
        Figure("fsck", checked, unit="seconds"),
        Figure("peak memory with every manifest read", (memory,), unit="gib"),
        Figure("1,000 points to MLflow's SQLite", (first / rows * 1_000,), unit="seconds"),
        Figure("seeing that MLflow has them", (again / rows * 1_000,), unit="seconds"),
        quick=quick,
    )


if __name__ == "__main__":
    main()
