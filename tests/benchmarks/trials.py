"""Many trials on a real Ray: ``stepwise run`` of 200 trials, stages of at most three steps, so that all is overhead.

Each trial is five stages of a tiny model. Times are those at which stages were committed; memory is the command's own,
which holds Tune, the live view and MLflow's client. ``--trials N``: another number of them.
"""

from __future__ import annotations

import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import psutil
from bench import STEPWISE, Figure, arguments, console, finish, table

from orchestrator.store import Manifest, StageStore, saved_plan

JOB = """
name = "many"
methods = ["stepwise"]
seeds = {seeds}
[task]
digits = [1, 2]
train_examples = 500
[model]
layers = 1
width = 32
heads = 2
[schedule]
tokens_per_stage = 3
stage_steps = 3
pretrain_steps = 3
consolidation_stages = 1
[evaluation]
examples = 16
speed_examples = 1
speed_batch = 4
"""


def run(trials: int, folder: Path) -> tuple[float, float, list[tuple[int, float]]]:
    """Begin and end of the command, and on the way (stages committed, GiB of the command)."""
    job, memory = folder / "many.toml", []
    job.write_text(JOB.format(seeds=list(range(trials))))
    began = time.time()
    command = [STEPWISE, "run", job, "--store", folder / "store"]
    with (folder / "said").open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        itself = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                committed = sum(1 for _ in (folder / "store").glob("stages/*/manifest.json"))
                memory.append((committed, itself.memory_info().rss / (1 << 30)))
            time.sleep(1.0)
        assert process.returncode == 0, (folder / "said").read_text()
    return began, time.time(), memory


def commits(folder: Path) -> list[list[Manifest]]:
    """Of every trial, its stages' records."""
    store = StageStore(folder / "store")
    plan = saved_plan("many", store)
    return [[store.read(stage.key) for stage in trial.stages] for trial in plan.trials]


def points(folder: Path) -> int:
    """Those in MLflow."""
    with closing(sqlite3.connect(folder / "store/mlflow.db")) as database:
        return database.execute("select count(*) from metrics").fetchone()[0]


def main() -> None:
    options = arguments(__doc__, trials=(int, "how many; 200 unless it says so"))
    trials = 3 if options.quick else options.trials or 200
    with tempfile.TemporaryDirectory() as name:
        began, ended, memory = run(trials, Path(name))
        chains, rows = commits(Path(name)), points(Path(name))
    times = sorted(record.committed_at for chain in chains for record in chain)
    within = [after.committed_at - before.committed_at for chain in chains for before, after in pairwise(chain)]
    trained = [
        record.metrics.train_seconds + record.metrics.evaluate_seconds for chain in chains for record in chain[1:]
    ]
    boundaries = tuple(stage - work for stage, work in zip(within, trained, strict=True))
    console.print(
        f"{trials} trials, {len(times)} stages, exit code 0 after {ended - began:.0f} s; {rows:,} points in MLflow"
    )
    table(
        "Memory of the command",
        ("stages committed", "GiB"),
        [memory[len(memory) * part // 8] for part in range(1, 8)] + [memory[-1]],
    )
    finish(
        "trials",
        Figure("wall time a trial", ((times[-1] - times[0]) / (trials - 1),), unit="seconds"),
        Figure("from stage to stage of a trial", tuple(within), unit="seconds"),
        Figure("the same without training and measuring", boundaries, unit="seconds"),
        Figure("peak memory of the command", (max(gib for _, gib in memory),), unit="gib"),
        Figure("MLflow points a second, while it ran", (rows / (times[-1] - times[0]),)),
        Figure("from the last commit to the command's end", (ended - times[-1],), unit="seconds"),
        quick=options.quick,
        own_seconds=None,
    )


if __name__ == "__main__":
    main()
