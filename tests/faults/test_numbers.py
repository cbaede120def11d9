"""What is not a number is caught before it is committed, wherever it comes in; the trial goes on from what is good."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.config import Evaluation, Job, MultiplicationTask, Schedule, ScratchModel, Stability, Training
from orchestrator.method.course import Trace
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.train import Progress, StageRun
from orchestrator.plan import build_plan
from orchestrator.store import StageStore
from orchestrator.trials import runner as trials_runner
from orchestrator.trials.data import prepare_data
from orchestrator.trials.walk import replay, walk

JOB = Job(
    name="numbers",
    task=MultiplicationTask(digits=(1, 2)),
    model=ScratchModel(layers=1, width=32, heads=2),
    schedule=Schedule(tokens_per_stage=6, stage_steps=12, pretrain_steps=6),
    training=Training(learning_rate=1e-3, batch_size=16),
    evaluation=Evaluation(examples=16, speed_examples=1, speed_batch=4),
    stability=Stability(probe_examples=8),
)
STEPS = 12
Model = torch.nn.Module


def spoilt(tensor: torch.Tensor) -> None:
    with torch.no_grad():
        tensor.view(-1)[3] = math.nan


def gradient(model: Model, step: int) -> None:
    """The gradient of one weight at one step of the stage."""
    calls = iter(range(10_000))

    def hook(value: torch.Tensor) -> torch.Tensor:
        return torch.full_like(value, math.nan) if next(calls) == step else value

    model.transformer.h[0].mlp.c_fc.weight.register_hook(hook)


BEFORE: dict[str, Callable[[Model], None]] = {
    "gradient of the last step": lambda model: gradient(model, STEPS - 1),
}
DURING: dict[str, int] = {"weight in the middle": STEPS // 2, "weight after the last block": STEPS}
AFTER: dict[str, Callable[[Model, Optimizer], None]] = {
    "weight before the commit": lambda model, optimizer: spoilt(model.transformer.wpe.weight),
    "moment before the commit": lambda model, optimizer: spoilt(
        optimizer.adamw.state[optimizer.parameters[0]]["exp_avg"]
    ),
}


@pytest.mark.parametrize("where", [*BEFORE, *DURING, *AFTER])
def test_nan_is_never_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None, where: str) -> None:
    train_stage, stages = trials_runner.train_stage, iter(range(100))

    def train(run: StageRun) -> Trace:
        injected = next(stages) == 2
        if injected and where in BEFORE:
            BEFORE[where](run.model)

        def spoiling(progress: Progress) -> None:
            run.watch(progress)
            if injected and progress.step == DURING.get(where):
                spoilt(run.model.transformer.wpe.weight)

        trace = train_stage(replace(run, watch=spoiling))
        if injected and where in AFTER:
            AFTER[where](run.model, run.optimizer)
        return trace

    monkeypatch.setattr(trials_runner, "train_stage", train)
    store = StageStore(tmp_path)
    data = prepare_data(JOB, store)
    trial = build_plan(JOB, data.total_tokens).trials[0]
    runner = trials_runner.StageRunner(trials_runner.Workplace(JOB, data, store))
    list(walk(trial, runner))

    chain = replay(trial, store)
    (failed,) = chain.failures
    assert (failed.manifest.verdict, failed.manifest.metrics.detector) == ("diverged", "A1")
    assert failed.manifest.files == ()
    assert chain.finished
    for tried in chain.standing:
        tensors = trials_runner.load_file(store.folder(tried.manifest) / "model.safetensors")
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
