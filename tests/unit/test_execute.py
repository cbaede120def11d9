"""A trial in one process, without Ray: what starts it, what ends it early."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.config import Job, MultiplicationTask, PretrainedModel, Schedule, ScratchModel, Training
from orchestrator.method.hub import load_tokenizer
from orchestrator.method.model import initial_model, load_weights, save_weights
from orchestrator.plan import Plan, build_plan
from orchestrator.runtime.data import prepare_data
from orchestrator.runtime.execute import StageRunner, walk
from orchestrator.store import Manifest, StageStore, frontier
from orchestrator.tasks import make_task

TASK = MultiplicationTask(digits=(1, 2))
TINY = ScratchModel(layers=1, width=32, heads=2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def executed(job: Job, folder: Path) -> tuple[Plan, StageStore, list[Manifest]]:
    store = StageStore(folder)
    data = prepare_data(job, store)
    plan = build_plan(job, data.total_tokens)
    runner = StageRunner(job, data, store, torch.device("cpu"), lambda stage, progress: None)
    return plan, store, [chain.attempts[-1].manifest for chain in walk(plan.trials[0], runner)]


def test_pretrained_model_is_trained_from_its_own_weights_and_tokens(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TINY, make_task(TASK).symbols)
    save_weights(initial_model(TINY, tokenizer, 64, 7), tokenizer, tmp_path / "model")
    job = Job(
        name="local",
        task=TASK,
        model=PretrainedModel(name=str(tmp_path / "model")),
        schedule=Schedule(tokens_per_stage=3, stage_steps=4, keep_position=True),
    )
    _, store, manifests = executed(job, tmp_path / "store")
    assert [m.metrics.removed_tokens for m in manifests] == [0, 3, 6]
    start = initial_model(TINY, tokenizer, 64, 7).transformer.wte.weight
    end = load_weights(store.folder(manifests[-1])).transformer.wte.weight
    assert 0 < (start - end).abs().max() < 0.01


def test_stage_that_always_diverges_is_restarted_and_leaves_records_without_weights(tmp_path: Path) -> None:
    job = Job(
        name="wild",
        task=TASK,
        model=TINY,
        schedule=Schedule(tokens_per_stage=3, stage_steps=20, pretrain_steps=1),
        training=Training(learning_rate=1.0, max_grad_norm=1e30, weight_decay=1e4),
    )
    plan, store, manifests = executed(job, tmp_path)
    assert [m.verdict for m in manifests if m.metrics.removed_tokens == 0][:2] == ["good", "diverged"]
    failed = [m for m in manifests if m.verdict == "diverged"]
    assert len(failed) == 7
    assert {m.files for m in failed} == {()}
    assert {m.metrics.detector for m in failed} == {"A1"}
    assert [p.verdict for p in frontier(plan, store)] == ["good", "diverged"]
    assert [m.attempt for m in executed(job, tmp_path)[2]] == [m.attempt for m in manifests]


def test_without_restarts_a_diverged_stage_ends_the_trial(tmp_path: Path) -> None:
    schedule = Schedule(tokens_per_stage=3, stage_steps=20, pretrain_steps=1)
    _, _, manifests = executed(wild(schedule, Stability(restarts=False)), tmp_path)
    assert [m.verdict for m in manifests] == ["good", "diverged"]


def test_restart_at_a_lower_rate_saves_a_trial_whose_rate_is_too_high(tmp_path: Path) -> None:
    pass
