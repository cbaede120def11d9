"""Stages go to a mirror and come back: fsspec's file system in memory stands for the bucket."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from orchestrator.config import Job
from orchestrator.errors import StoreError
from orchestrator.method.stage import StageMetrics
from orchestrator.plan import Plan, build_plan
from orchestrator.store import StageStore, frontier, save_job
from orchestrator.store.fsck import check_store
from orchestrator.store.mirror import Mirror
from orchestrator.store.searches import record_proposal


@pytest.fixture
def url() -> str:
    return f"memory://bucket-{uuid.uuid4().hex}/prefix"


def make_plan() -> Plan:
    schedule = {"tokens_per_stage": 4, "stage_steps": 10, "pretrain_steps": 10}
    job = {"name": "small", "methods": ["explicit_cot", "stepwise"], "task": {"digits": [2, 2]}, "schedule": schedule}
    return build_plan(Job.model_validate(job))


def trained(root: Path, plan: Plan, stages: int = 99) -> StageStore:
    """A store with the first stages of every trial."""
    store = StageStore(root)
    for stage in {stage.key: stage for trial in plan.trials for stage in trial.stages[:stages]}.values():
        if store.read(stage.key):
            continue
        attempt = store.begin(stage.key)
        (attempt / "model.safetensors").write_bytes(stage.key.encode())
        (attempt / "tokenizer").mkdir()
        (attempt / "tokenizer/vocab.json").write_text("{}")
        metrics = StageMetrics(
            removed_tokens=stage.spec.removed_to,
            total_tokens=stage.spec.total_tokens,
            exact_match=0.5,
            examples=100,
            validation_loss=0.1,
            generated_tokens=9.0,
            examples_per_second=10.0,
            examples_per_second_batched=10.0,
            train_seconds=1.0,
            evaluate_seconds=1.0,
        )
        store.commit(stage, attempt, "good", metrics)
    return store


def test_empty_store_begins_with_what_the_mirror_holds(tmp_path, url):
    plan = make_plan()
    old = trained(tmp_path / "old", plan)
    Mirror(url, old).push(plan)
    new = StageStore(tmp_path / "new")
    assert Mirror(url, new).pull(plan) == len(plan.unique_stages)
    assert check_store(new, repair=False).lines == (
        f"{len(plan.unique_stages)} stages verified, 0 damaged stages found, 0 leftovers found",
    )
    assert [p.model_dump(exclude={"attempt"}) for p in frontier(plan, new)] == [
        p.model_dump(exclude={"attempt"}) for p in frontier(plan, old)
    ]
    assert Mirror(url, new).pull(plan) == 0


def test_folder_is_a_mirror_too(tmp_path):
    plan = make_plan()
    Mirror(f"file://{tmp_path}/mirror", trained(tmp_path / "old", plan)).push(plan)
    assert Mirror(str(tmp_path / "mirror"), StageStore(tmp_path / "new")).pull(plan) == len(plan.unique_stages)


def test_later_stages_follow_without_sending_anything_twice(tmp_path, url):
    plan = make_plan()
    store = trained(tmp_path / "old", plan, stages=1)
    mirror = Mirror(url, store)
    mirror.push(plan)
    files = fsspec.filesystem("memory")
    first = {path: files.created(path) for path in files.find(url.removeprefix("memory:/")) if "/stages/" in path}
    trained(tmp_path / "old", plan)
    mirror.push(plan)
    assert {path: files.created(path) for path in first} == first
    assert Mirror(url, StageStore(tmp_path / "new")).pull(plan) == len(plan.unique_stages)


def test_stage_without_its_manifest_is_not_there(tmp_path, url):
    plan = make_plan()
    store = trained(tmp_path / "old", plan)
    Mirror(url, store).push(plan)
    second = plan.trials[1].stages[1]
    fsspec.filesystem("memory").rm(f"{url.removeprefix('memory:/')}/stages/{second.key}/manifest.json")
    new = StageStore(tmp_path / "new")
    Mirror(url, new).pull(plan)
    assert new.read(second.key) is None
    assert all(new.read(stage.key) for stage in plan.trials[0].stages)


def test_damaged_copy_is_refused_and_nothing_of_it_is_kept(tmp_path, url):
    plan = make_plan()
    Mirror(url, trained(tmp_path / "old", plan)).push(plan)
    files = fsspec.filesystem("memory")
    first = plan.trials[0].stages[0].key
    (weights,) = files.glob(f"{url.removeprefix('memory:/')}/stages/{first}/*/model.safetensors")
    files.pipe_file(weights, b"other weights")
    new = StageStore(tmp_path / "new")
    with pytest.raises(StoreError, match="CKP004"):
        Mirror(url, new).pull(plan)
    assert new.read(first) is None
    assert new.leftovers(first) == []


def test_what_a_search_decided_comes_with_it(tmp_path, url):
    search = {"type": "optuna", "configurations": 2, "space": {"schedule.smoothing_lambda": {"low": 1.0, "high": 8.0}}}
    job = Job.model_validate({**make_plan().job.model_dump(), "methods": ["stepwise"], "search": search})
    old, new = StageStore(tmp_path / "old"), StageStore(tmp_path / "new")
    plan = build_plan(job)
    save_job(plan, old)
    record_proposal(job, old.root, (("schedule.smoothing_lambda", 2.5),))
    Mirror(url, old).push(plan)
    Mirror(url, new).pull_records("small")
    here, there = ({p.relative_to(s.root): p.read_text() for p in s.root.rglob("jobs/small/*")} for s in (new, old))
    assert here == there != {}


@pytest.mark.parametrize("mirror", ["nowhere://bucket", "gs9://x"])
def test_unknown_mirror_is_refused_before_anything_is_written(tmp_path, stepwise, mirror):
    job = tmp_path / "job.toml"
    job.write_text('name = "x"\n[task]\ndigits = [1, 2]\n')
    finished = stepwise("run", job, "--mirror", mirror, "--store", tmp_path / "store")
    assert (finished.code, "MIR001" in finished.err) == (2, True)
    assert not (tmp_path / "store").exists()
