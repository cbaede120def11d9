"""Weights split over two gloo workers: the same stages on disk as one worker's, to be gone on from by either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from orchestrator.config import Job
from orchestrator.errors import InputError
from orchestrator.method import train
from orchestrator.method.train import Progress
from orchestrator.method.workers import split
from orchestrator.plan import PlannedStage, build_plan
from orchestrator.store import Manifest, StageStore
from orchestrator.trials import snapshot
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import OPTIMIZER_FILE, Hooks, StageRunner, Workplace
from orchestrator.trials.snapshot import NodeDrained
from orchestrator.trials.walk import walk

WORKERS = 2
SHARDED = {"workers": WORKERS, "shard": True}
LONG = 12


class Killed(BaseException):
    """The process ends here."""


def make_job(*, task: dict[str, Any] | None = None, pretrain_steps: int = 3, **resources: Any) -> Job:
    return Job.model_validate(
        {
            "name": "sharded",
            "task": task or {"digits": [1, 2]},
            "model": {"layers": 2, "width": 32, "heads": 2},
            "schedule": {"pretrain_steps": pretrain_steps, "tokens_per_stage": 3, "stage_steps": 4},
            "training": {"learning_rate": 3e-3, "precision": "fp32"},
            "evaluation": {"examples": 12, "speed_examples": 1, "speed_batch": 1},
            "stability": {"probe_examples": 12},
            "resources": resources,
        }
    )


def by_tokens(root: Path, workers: int = 1) -> Job:
    """Examples of unlike lengths, so that two workers go through their shares in unlike many passes."""
    task = {"type": "text", "train": str(root / "uneven.txt"), "validation": str(root / "uneven.txt")}
    return make_job(task=task, workers=workers, micro_batch_tokens=40)


def walked(
    job: Job,
    root: Path,
    stages: int = 99,
    watch: Callable[[PlannedStage, Progress], None] = lambda stage, progress: None,
    drained: Callable[[], bool] = lambda: False,
) -> list[Manifest]:
    """The first stages of a trial."""
    store = StageStore(root)
    data = prepare_data(job, store)
    runner = StageRunner(Workplace(job, data, store), Hooks(watch, drained=drained))
    chains = walk(build_plan(job, data.total_tokens).trials[0], runner)
    return [chain.attempts[-1].manifest for _, chain in zip(range(stages), chains, strict=False)]


def kill(stage: PlannedStage, progress: Progress) -> None:
    if (stage.index, progress.step) == (2, 2):
        raise Killed


def drain(root: Path) -> None:
    """A stage of split weights, and it again, its node drained in the middle of its only block."""
    snapshot.LEAST_SECONDS, train.BLOCKS = float("inf"), 1  # no other snapshot
    job, steps = make_job(**SHARDED, pretrain_steps=LONG), []
    walked(job, root / "whole", stages=1)
    with pytest.raises(NodeDrained):
        walked(job, root / "drained", drained=lambda: True)
    dist.barrier()
    walked(job, root / "drained", stages=1, watch=lambda stage, progress: steps.append(progress.step))
    assert steps == [10, LONG]


def assert_shared_out() -> None:
    """Of every weight each worker has half."""
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=24, n_positions=16))
    everything = sum(weight.numel() for weight in model.parameters())
    split(model, torch.device("cpu"))
    assert sum(weight.to_local().numel() for weight in model.parameters()) * WORKERS == everything


def work(rank: int, root: Path) -> None:
    """What a worker does: a trial of split weights, its first stage leaner and with copies, and it again, killed."""
    torch.set_num_threads(1)
    snapshot.LEAST_SECONDS, snapshot.SHARE = 0.0, 1e9
    dist.init_process_group("gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=WORKERS)
    assert_shared_out()
    walked(make_job(**SHARDED), root / "split")
    walked(make_job(**SHARDED, micro_batch=5, gradient_checkpointing=True), root / "lean", stages=1)
    walked(make_job(workers=WORKERS, micro_batch=64), root / "copies", stages=1)
    walked(by_tokens(root, WORKERS), root / "by tokens", stages=1)
    with pytest.raises(Killed):
        walked(make_job(**SHARDED), root / "killed", watch=kill)
    dist.barrier()
    walked(make_job(**SHARDED), root / "killed")
    drain(root)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Stores of two workers, and ``one`` of a single one."""
    root = tmp_path_factory.mktemp("sharding")
    (root / "uneven.txt").write_text("".join(f"{n} + 1||{'1 ' * (3 + n % 11)}#### {n}\n" for n in range(64)))
    walked(make_job(), root / "one")
    walked(by_tokens(root), root / "one by tokens", stages=1)
    mp.spawn(work, (root,), WORKERS)
    return root


def committed(root: Path, job: Job | None = None) -> list[tuple[Manifest, dict[str, torch.Tensor]]]:
    """The stages of a store with their tensors, adopted and not trained."""
    store = StageStore(root)
    manifests = [m for stage in planned(job) if (m := store.manifest(stage))]
    folders = [store.folder(manifest) for manifest in manifests]
    return [
        (manifest, load_file(folder / "model.safetensors") | load_file(folder / OPTIMIZER_FILE))
        for manifest, folder in zip(manifests, folders, strict=True)
    ]


def planned(job: Job | None = None) -> Any:
    return build_plan(job or make_job()).trials[0].stages


def assert_alike(root: Path, other: Path, stages: int | None = None, job: Job | None = None) -> None:
    """Two stores hold the same stages, the first as many as it is to have."""
    assert committed(root, job)
    for (ours, tensors), (theirs, expected) in zip(committed(root, job), committed(other, job)[:stages], strict=True):
        assert ours.key == theirs.key
        assert ours.verdict == theirs.verdict == "good"
        assert ours.metrics.validation_loss == pytest.approx(theirs.metrics.validation_loss, rel=1e-3)
        assert [b.gradient_norm for b in ours.metrics.blocks] == pytest.approx(
            [b.gradient_norm for b in theirs.metrics.blocks], rel=1e-2
        )
        assert [b.update_ratio for b in ours.metrics.blocks] == pytest.approx(
            [b.update_ratio for b in theirs.metrics.blocks], rel=1e-2
        )
        assert tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(tensors[name], tensor, atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.parametrize(("layout", "stages"), [("split", None), ("lean", 1), ("copies", 1)])
def test_stages_of_two_workers_are_those_of_one_up_to_rounding(roots: Path, layout: str, stages: int | None) -> None:
    assert_alike(roots / layout, roots / "one", stages)


def test_two_workers_of_unlike_many_passes_end_as_one(roots: Path) -> None:
    assert_alike(roots / "by tokens", roots / "one by tokens", 1, by_tokens(roots))


def test_one_worker_goes_on_from_stages_of_split_weights(roots: Path) -> None:
    shutil.copytree(roots / "split", roots / "mixed")
    for stage in planned()[2:]:
        shutil.rmtree(roots / "mixed" / "stages" / stage.key)
    walked(make_job(), roots / "mixed")
    assert_alike(roots / "mixed", roots / "split")


@pytest.mark.parametrize(("ended", "whole", "steps"), [("killed", "split", 3), ("drained", "whole", LONG)])
def test_killed_or_drained_stage_of_split_weights_ends_with_the_same_weights(
    roots: Path, ended: str, whole: str, steps: int
) -> None:
    job = make_job(pretrain_steps=steps)
    assert committed(roots / whole, job)
    for (_, tensors), (_, expected) in zip(committed(roots / ended, job), committed(roots / whole, job), strict=True):
        assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("job", "found"),
    [
        ({"resources": {"shard": True}}, r"shard splits the weights over workers and there is 1"),
        ({"resources": SHARDED, "methods": ["icot_kd"]}, r"CFG035.*resources.shard: does not go with icot_kd"),
    ],
)
def test_what_shard_does_not_go_with_is_refused(job: dict[str, Any], found: str) -> None:
    tables = {"name": "x", "task": {"digits": [2, 2]}} | job
    with pytest.raises((InputError, ValueError), match=found):
        build_plan(Job.model_validate(tables))
