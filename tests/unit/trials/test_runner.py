"""A trial in one process, without Ray: what starts it, what ends it early."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.config import (
    Job,
    MultiplicationTask,
    PretrainedModel,
    Resources,
    Schedule,
    ScratchModel,
    Stability,
    Training,
)
from orchestrator.errors import TrialError
from orchestrator.method.models.hub import load_tokenizer
from orchestrator.method.models.model import initial_model, load_weights, save_weights
from orchestrator.plan import Plan, build_plan
from orchestrator.ray.train import problems_of
from orchestrator.results.frontier import frontier
from orchestrator.store import Manifest, StageStore
from orchestrator.tasks import make_task
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import replay, walk

TASK = MultiplicationTask(digits=(1, 2))
TINY = ScratchModel(layers=1, width=32, heads=2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def executed(job: Job, folder: Path) -> tuple[Plan, StageStore, list[Manifest]]:
    store = StageStore(folder)
    data = prepare_data(job, store)
    plan = build_plan(job, data.total_tokens)
    runner = StageRunner(Workplace(job, data, store))
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


def wild(stability: Stability, *, weight_decay: float = 1e4, learning_rate: float = 1.0, steps: int = 20) -> Job:
    """AdamW multiplies the weights by 1 - rate x decay at every step: beyond 2 they explode."""
    return Job(
        name="wild",
        task=TASK,
        model=TINY,
        schedule=Schedule(tokens_per_stage=3, stage_steps=steps, pretrain_steps=1),
        training=Training(
            learning_rate=learning_rate, max_grad_norm=1e30, weight_decay=weight_decay, reset_optimizer=False
        ),
        stability=stability,
    )


def test_stage_that_always_diverges_is_restarted_and_leaves_records_without_weights(tmp_path: Path) -> None:
    plan, store, manifests = executed(wild(Stability()), tmp_path)
    assert manifests[0].verdict == "good"
    failed = manifests[1:]
    assert {(m.verdict, m.metrics.detector, m.files) for m in failed} == {("diverged", "A1", ())}
    assert [p.verdict for p in frontier(plan, store)] == ["good", "diverged"]
    assert replay(plan.trials[0], store).given_up
    assert [m.attempt for m in executed(wild(Stability()), tmp_path)[2]] == [m.attempt for m in manifests]


def test_without_restarts_a_diverged_stage_ends_the_trial(tmp_path: Path) -> None:
    _, _, manifests = executed(wild(Stability(restarts=False)), tmp_path)
    assert [m.verdict for m in manifests] == ["good", "diverged"]


@pytest.mark.slow
def test_rate_that_is_too_high_is_halved_by_the_ladder_and_the_trial_ends_well(tmp_path: Path) -> None:
    job = wild(Stability(max_compute=20), weight_decay=3000, learning_rate=1e-3, steps=90)
    plan, store, manifests = executed(job, tmp_path)
    chain = replay(plan.trials[0], store)
    assert [m.verdict for m in manifests[:5]] == ["good", "diverged", "diverged", "diverged", "good"]
    assert chain.attempts[4].pace.learning_rate == 0.5
    assert chain.finished


def test_every_stage_is_recorded_in_blocks(tmp_path: Path) -> None:
    job = Job(
        name="blocks",
        task=TASK,
        model=TINY,
        schedule=Schedule(tokens_per_stage=3, stage_steps=50, pretrain_steps=50),
        training=Training(learning_rate=3e-3),
    )
    _, _, manifests = executed(job, tmp_path)
    metrics = manifests[2].metrics
    assert [block.step for block in metrics.blocks] == [3 * i for i in range(1, 17)] + [50]
    assert [block.removed_tokens for block in metrics.blocks][::16] == [1, 3]
    assert all(block.finite and block.gradient_norm > 0 and block.update_ratio > 0 for block in metrics.blocks)
    assert metrics.steps_taken == 50
    first, last = manifests[0].metrics.blocks[0], manifests[0].metrics.blocks[-1]
    assert last.probe_loss < first.probe_loss


def adaptive(pretrain_steps: int, stage_steps: int, asked: float) -> Job:
    return Job(
        name="adaptive",
        task=TASK,
        model=TINY,
        schedule=Schedule(
            type="adaptive",
            tokens_per_stage=3,
            stage_steps=stage_steps,
            pretrain_steps=pretrain_steps,
            consolidation_stages=1,
        ),
        training=Training(learning_rate=5e-3, batch_size=64),
        stability=Stability(min_exact_match=asked, max_restarts_per_stage=1),
    )


def test_adaptive_stage_ends_with_the_recovery_from_its_last_token(tmp_path: Path) -> None:
    plan, store, manifests = executed(adaptive(10, 60, asked=1e-6), tmp_path)
    assert {m.verdict for m in manifests} == {"good"}
    assert [m.metrics.steps_taken for m in manifests[2:4]] == [12, 12]
    assert [b.removed_tokens for b in manifests[2].metrics.blocks] == [1, 1, 2, 2, 3, 3]
    assert frontier(plan, store)[-1].step == sum(m.metrics.steps_taken for m in manifests)


def test_adaptive_stage_without_recovery_goes_as_the_linear_one(tmp_path: Path) -> None:
    job = adaptive(200, 30, asked=0.999)
    job = job.model_copy(update={"stability": job.stability.model_copy(update={"restarts": False})})
    _, _, manifests = executed(job, tmp_path)
    assert [m.verdict for m in manifests] == ["good"] * 5
    assert [m.metrics.steps_taken for m in manifests[2:]] == [30, 30, 30]
    assert [b.removed_tokens for b in manifests[2].metrics.blocks] == [1] * 10 + [2] * 10 + [3] * 10


def without_memory() -> None:
    raise MemoryError


def test_worker_that_is_alone_says_that_it_has_no_memory_and_one_of_several_is_ended_by_ray() -> None:
    job = Job.model_validate({"name": "x", "task": {"digits": [2, 2]}})
    (problem,) = problems_of(build_plan(job).trials[0], without_memory)
    assert (problem.code, problem.where) == ("RUN006", "stepwise-seed0")
    several = job.model_copy(update={"resources": Resources(workers=2)})
    with pytest.raises(TrialError, match=r"RUN006\] stepwise-seed0"):
        problems_of(build_plan(several).trials[0], without_memory)
