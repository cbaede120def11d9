"""What a person waits for before anything happens: help, a plan, and the report of a store with 1,000 trials."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench import REPOSITORY, STEPWISE, Figure, arguments, finish, table
from made_up import fill

from orchestrator.config import load_job
from orchestrator.plan import build_plan

PLANNED = REPOSITORY / "jobs/quickstart.toml"
JOB = """
name = "many"
seeds = {seeds}
[task]
digits = [3, 3]
[schedule]
tokens_per_stage = 24
stage_steps = 240
pretrain_steps = 10
"""


def seconds(*words: object) -> float:
    """Wall time of a command."""
    began = time.perf_counter()
    subprocess.run([STEPWISE, *map(str, words)], cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - began


def filled(folder: Path, trials: int) -> tuple[Path, Path]:
    """A job of so many trials with three stages each, and a store that holds them all."""
    job, store = folder / "many.toml", folder / "store"
    job.write_text(JOB.format(seeds=list(range(trials))))
    fill(build_plan(load_job(job)).trials, store)
    return job, store


def main() -> None:
    quick = arguments(__doc__).quick
    trials, repetitions = (50, 3) if quick else (1_000, 9)
    with tempfile.TemporaryDirectory() as folder:
        job, store = filled(Path(folder), trials)
        commands = {
            "stepwise --help": (("--help",), 0.3),
            "stepwise plan jobs/quickstart.toml": (("plan", PLANNED, "--store", f"{folder}/empty"), 1.0),
            f"stepwise report, {trials:,} trials": (("report", job, "--store", store), 3.0),
        }
        figures = [
            Figure(name, tuple(seconds(*words) for _ in range(repetitions)), target, "seconds", at_least=False)
            for name, (words, target) in commands.items()
        ]
    rows = [(figure.name, min(figure.values), figure.value, max(figure.values)) for figure in figures]
    table("Start-up, seconds", ("command", "least", "median", "most"), rows)
    finish("startup", *figures, quick=quick)


if __name__ == "__main__":
    main()
