"""Every state a power cut may leave while a stage or a snapshot is written: the old, the new, nothing; never half."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from builders import commit_stage
from faults.crashes import Recorder, build, crash_states

from orchestrator.config import Job
from orchestrator.errors import StoreError
from orchestrator.files import replace_file
from orchestrator.plan import PlannedStage, build_plan
from orchestrator.store import Snapshots, StageStore

FILES = {"config.json": b'{"layers": 2}', "model.safetensors": bytes(range(256)) * 2}


@pytest.fixture(scope="module")
def stage() -> PlannedStage:
    schedule = {"tokens_per_stage": 4, "stage_steps": 20}
    job = Job.model_validate({"name": "tiny", "task": {"digits": [2, 2]}, "schedule": schedule})
    return build_plan(job).trials[0].stages[0]


def holds(store: StageStore, stage: PlannedStage) -> bool:
    """Whether the stage is committed, verified, and made of the bytes that were written. Raises if it is refused."""
    manifest = store.manifest(stage)
    if manifest is None:
        return False
    store.verify(manifest)
    return all((store.folder(manifest) / name).read_bytes() == content for name, content in FILES.items())


def recorded_commit(folder: Path, stage: PlannedStage) -> Recorder:
    recorder = Recorder(folder / "disk")
    recorder.root.mkdir()
    with recorder.watching():
        commit_stage(StageStore(recorder.root / "store"), stage, files=FILES)
    return recorder


def test_no_power_cut_leaves_half_a_stage_or_takes_an_acknowledged_one(tmp_path: Path, stage: PlannedStage) -> None:
    recorder = recorded_commit(tmp_path, stage)
    acknowledged, states, standing = len(recorder.steps), 0, 0
    for taken, tree in crash_states(recorder.steps, random.Random(0)):
        root = tmp_path / "crashed"
        build(tree, root)
        store = StageStore(root / "store")
        stands = holds(store, stage)
        assert stands or taken < acknowledged
        states, standing = states + 1, standing + stands
        if not stands and states % 25 == 0:
            commit_stage(store, stage, files=FILES)
            assert holds(StageStore(root / "store"), stage)
        shutil.rmtree(root)
    print(f"crash states: {states}, with the stage: {standing}, accepted wrongly: 0, refused: 0")
    assert states > 200
    assert standing > 0


def test_no_power_cut_leaves_half_a_snapshot_or_takes_the_one_before(tmp_path: Path, stage: PlannedStage) -> None:
    root = tmp_path / "disk"
    recorder = Recorder(root)
    snapshots = Snapshots(StageStore(root), stage, {"threads": "1"})
    snapshots.folder.parent.mkdir(parents=True)
    with recorder.watching():
        snapshots.save({"steps": 1}, lambda path: path.write_bytes(b"first" * 9))
        first = len(recorder.steps)
        snapshots.save({"steps": 2}, lambda path: path.write_bytes(b"second" * 9))
    states = 0
    for taken, tree in crash_states(recorder.steps, random.Random(0)):
        crashed = tmp_path / "crashed"
        build(tree, crashed)
        latest = Snapshots(StageStore(crashed), stage, {"threads": "1"}).latest()
        found = json.dumps(latest[0]) if latest else None
        assert found in (None, '{"steps": 1}', '{"steps": 2}')
        if latest:
            assert latest[1].read_bytes() == {1: b"first" * 9, 2: b"second" * 9}[latest[0]["steps"]]
        assert latest or taken < first or f"stages/{stage.key}/snapshot" not in tree
        states += 1
        shutil.rmtree(crashed)
    print(f"crash states of a snapshot: {states}")
    assert states > 100


def test_no_power_cut_leaves_half_a_record_of_a_job_or_takes_the_one_before(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "disk")
    recorder.root.mkdir()
    file = recorder.root / "job.json"
    with recorder.watching():
        replace_file(file, '{"seeds": [0]}')
        first = len(recorder.steps)
        replace_file(file, '{"seeds": [0, 1]}')
    states = set()
    for taken, tree in crash_states(recorder.steps, random.Random(0)):
        crashed = tmp_path / "crashed"
        build(tree, crashed)
        record = crashed / "job.json"
        found = record.read_text() if record.exists() else None
        states.add(found)
        assert found or taken < first
        shutil.rmtree(crashed)
    assert states == {None, '{"seeds": [0]}', '{"seeds": [0, 1]}'}


def test_states_of_a_commit_that_does_not_sync_are_caught(tmp_path: Path, stage: PlannedStage, monkeypatch) -> None:
    monkeypatch.setattr("orchestrator.store.stages.sync", lambda path: None)
    recorder = recorded_commit(tmp_path, stage)
    refused = lost = 0
    for number, (taken, tree) in enumerate(crash_states(recorder.steps, random.Random(0))):
        build(tree, tmp_path / str(number))
        try:
            lost += taken == len(recorder.steps) and not holds(StageStore(tmp_path / str(number) / "store"), stage)
        except StoreError:
            refused += 1
    assert refused
    assert lost
