"""A stage that was interrupted goes on from its snapshot, bit for bit; a snapshot that is not its own is not used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.config import Evaluation, Job, MultiplicationTask, Schedule, ScratchModel, Stability, Training
from orchestrator.method.train import Progress
from orchestrator.plan import PlannedStage, build_plan
from orchestrator.store import StageStore
from orchestrator.store.snapshots import STATE, Snapshot
from orchestrator.trials import snapshot
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import Hooks, StageRunner, Workplace
from orchestrator.trials.snapshot import NodeDrained
from orchestrator.trials.walk import walk

LINEAR = Schedule(tokens_per_stage=3, stage_steps=12, pretrain_steps=6)
ADAPTIVE = Schedule(type="adaptive", tokens_per_stage=3, stage_steps=36, pretrain_steps=6)
Steps = list[tuple[int, int]]


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True, scope="module")
def snapshot_after_every_block(one_thread: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "LEAST_SECONDS", 0.0)
        patch.setattr(snapshot, "SHARE", float("inf"))
        yield


def make_job(schedule: Schedule = LINEAR) -> Job:
    """Dropout, so that the generators count; an easy target, so that the adaptive schedule comes to its end."""
    return Job(
        name="resumed",
        task=MultiplicationTask(digits=(1, 2)),
        model=ScratchModel(layers=1, width=32, heads=2, dropout=0.1),
        schedule=schedule,
        training=Training(learning_rate=3e-3, batch_size=16, warmup_steps=3),
        evaluation=Evaluation(examples=16, speed_examples=1, speed_batch=4),
        stability=Stability(probe_examples=8, min_exact_match=1e-6),
    )


def run(job: Job, root: Path, stop: tuple[int, int] | None = None) -> tuple[StageStore, Steps]:
    """Walk the trial; ``stop``: fail at this stage and step. Returns every (stage, step) it was at."""
    store, seen = StageStore(root), []
    data = prepare_data(job, store)

    def watch(stage: PlannedStage, progress: Progress) -> None:
        seen.append((stage.index, progress.step))
        if seen[-1] == stop:
            raise Interrupted

    runner = StageRunner(Workplace(job, data, store), Hooks(watch))
    trial = build_plan(job, data.total_tokens).trials[0]
    if stop:
        with pytest.raises(Interrupted):
            list(walk(trial, runner))
    else:
        list(walk(trial, runner))
    return store, seen


def records(store: StageStore) -> dict[str, tuple]:
    """Everything of every stage that two equal runs share: files' bytes, losses, removals, blocks."""
    manifests = [store.read(key) for key in store.stage_keys()]
    return {
        m.key: (m.files, m.metrics.train_loss, m.metrics.after_removal, m.metrics.blocks, m.metrics.exact_match)
        for m in manifests
    }


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which stage 2 was interrupted at step 7."""
    root = tmp_path_factory.mktemp("interrupted") / "store"
    run(make_job(), root, (2, 7))
    return root


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    return records(run(make_job(), tmp_path_factory.mktemp("control"))[0])


@pytest.mark.parametrize("stop", [(0, 4), (2, 11)], ids=["first stage", "late"])
def test_interrupted_stage_goes_on_and_ends_with_the_same_bits(tmp_path, control, stop):
    run(make_job(), tmp_path, stop)
    store, seen = run(make_job(), tmp_path)
    assert seen[0] == (stop[0], stop[1] - 1)
    assert records(store) == control
    assert not list(store.root.rglob("snapshot"))


def test_stage_interrupted_twice_ends_with_the_same_bits(tmp_path, interrupted, control):
    root = shutil.copytree(interrupted, tmp_path / "store")
    run(make_job(), root, (2, 9))
    store, seen = run(make_job(), root)
    assert seen[0] == (2, 8)
    assert records(store) == control


def test_adaptive_stage_goes_on_where_its_removals_were(tmp_path):
    whole = records(run(make_job(ADAPTIVE), tmp_path / "whole")[0])
    run(make_job(ADAPTIVE), tmp_path / "parts", (2, 8))
    store, seen = run(make_job(ADAPTIVE), tmp_path / "parts")
    assert seen[0] == (2, 6)
    assert records(store) == whole


def test_stage_whose_node_is_drained_goes_on_elsewhere_from_the_middle_of_a_block(tmp_path, monkeypatch):
    job = make_job(Schedule(tokens_per_stage=6, stage_steps=240, pretrain_steps=6))
    whole = records(run(job, tmp_path / "whole")[0])
    monkeypatch.setattr(snapshot, "LEAST_SECONDS", float("inf"))  # so that there is no other snapshot
    store, asked = StageStore(tmp_path / "parts"), iter([False] * 30 + [True])
    data = prepare_data(job, store)
    runner = StageRunner(Workplace(job, data, store), Hooks(drained=lambda: next(asked)))
    with pytest.raises(NodeDrained):
        list(walk(build_plan(job, data.total_tokens).trials[0], runner))
    store, seen = run(job, tmp_path / "parts")
    assert seen[0][1] % 12 == 10, "a block has 12 steps"
    assert records(store) == whole


def forge(change: Callable[[dict], None], *, seal: bool) -> Callable[[Path], None]:
    """Change the state of a snapshot; ``seal``: and make it look whole."""

    def forged(folder: Path) -> None:
        document = json.loads((folder / STATE).read_text())
        change(document)
        snapshot = Snapshot.model_validate(document)
        (folder / STATE).write_text((snapshot.sealed() if seal else snapshot).model_dump_json())

    return forged


def flip_a_bit(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


UNUSABLE: dict[str, Callable[[Path], None]] = {
    "weights with a flipped bit": flip_a_bit,
    "no weights": lambda folder: next(folder.glob("*.safetensors")).unlink(),
    "torn state": lambda folder: (folder / STATE).write_text((folder / STATE).read_text()[:200]),
    "another step": forge(lambda snapshot: snapshot["state"].update(steps=3), seal=False),
    "another data position": forge(lambda snapshot: snapshot["state"].update(steps=3), seal=True),
    "another order of the data": forge(lambda snapshot: snapshot["state"].update(consumed="0" * 64), seal=True),
    "another stage": forge(lambda snapshot: snapshot["identity"].update(parent="0" * 32), seal=True),
    "another torch": forge(lambda snapshot: snapshot["circumstances"].update(torch="1.0"), seal=True),
    "another number of threads": forge(lambda snapshot: snapshot["circumstances"].update(threads="64"), seal=True),
    "a state that is none": forge(lambda snapshot: snapshot["state"].update(blocks="many"), seal=True),
}


@pytest.mark.parametrize("damage", UNUSABLE.values(), ids=UNUSABLE)
def test_snapshot_that_is_not_the_stages_own_is_thrown_away(tmp_path, interrupted, damage):
    root = shutil.copytree(interrupted, tmp_path / "store")
    damage(next(root.rglob(STATE)).parent)
    assert run(make_job(), root, (2, 1))[1][0] == (2, 0)


def test_fsck_keeps_the_snapshot_of_an_unfinished_stage(tmp_path, interrupted, stepwise):
    root = shutil.copytree(interrupted, tmp_path / "store")
    assert stepwise("fsck", "--repair", "--store", root).code == 0
    assert run(make_job(), root, (2, 7))[1][0] == (2, 6)
