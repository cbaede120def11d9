"""Stages that nobody trained, committed by the product's store: with all its fsyncs, some numbers and no weights."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import commit_stage, metrics_of

from orchestrator.method.stage import LossPoint, StageMetrics
from orchestrator.plan import PlannedStage, Trial
from orchestrator.store import StageStore


def fill(trials: Iterable[Trial], root: Path, stages: int | None = None, losses: int = 0) -> None:
    """Commit the first stages of all trials (default: all of them), as eight trials at a time do."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda trial: _commit(trial.stages[:stages], trial, StageStore(root), losses), trials))


def _commit(stages: Iterable[PlannedStage], trial: Trial, store: StageStore, losses: int) -> None:
    for stage in stages:
        commit_stage(store, stage, metrics(trial, stage, losses), files={"model.safetensors": b"no weights"})


def metrics(trial: Trial, stage: PlannedStage, losses: int = 0) -> StageMetrics:
    """Some numbers, others in every trial. ``losses``: points of its training loss."""
    first, every = stage.spec.first_step, stage.spec.steps // max(1, losses)
    return metrics_of(
        stage,
        (trial.seed * 37 + stage.index) % 101 / 100,
        examples=1_000,
        validation_loss=0.5,
        generated_tokens=33.0 - stage.spec.removed_to,
        examples_per_second=20.0 + trial.seed % 7,
        examples_per_second_batched=400.0,
        train_loss=tuple(LossPoint(step=first + every * n, loss=1 / n) for n in range(1, losses)),
        train_seconds=10.0,
    )
