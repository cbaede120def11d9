"""What a person waits for before anything happens: help, a plan, and the report of a store with 1,000 trials."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import REPOSITORY, Figure, arguments, finish, table

from orchestrator.config import load_job
from orchestrator.method.stage import StageMetrics
from orchestrator.plan import PlannedStage, Trial, build_plan
from orchestrator.store import StageStore

STEPWISE = Path(sys.executable).parent / "stepwise"
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
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda trial: _commit(trial, StageStore(store)), build_plan(load_job(job)).trials))
    return job, store


def _commit(trial: Trial, store: StageStore) -> None:
    for stage in trial.stages:
        attempt = store.begin(stage.key)
        (attempt / "model.safetensors").write_bytes(b"no weights")
        store.commit(stage, attempt, "good", _metrics(trial, stage))


def _metrics(trial: Trial, stage: PlannedStage) -> StageMetrics:
    """Some numbers, others in every trial."""
    return StageMetrics(
        removed_tokens=stage.spec.removed_to,
        total_tokens=stage.spec.total_tokens,
        exact_match=(trial.seed * 37 + stage.index) % 101 / 100,
        examples=1_000,
        validation_loss=0.5,
        generated_tokens=33.0 - stage.spec.removed_to,
        examples_per_second=20.0 + trial.seed % 7,
        examples_per_second_batched=400.0,
        train_seconds=10.0,
        evaluate_seconds=1.0,
    )


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
