"""Stages go to a mirror and come back: fsspec's file system in memory stands for the bucket."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import fsspec
import pytest
from builders import commit_stage
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console

from orchestrator.commands import run
from orchestrator.commands.mirroring import BackgroundMirror, Mirroring, bring, send
from orchestrator.config import Job
from orchestrator.errors import StoreError
from orchestrator.plan import Plan, build_plan
from orchestrator.plan.fork import fork_plan
from orchestrator.results.frontier import frontier
from orchestrator.store import StageStore, save_fork, save_job, saved_plan
from orchestrator.store.fsck import check_store
from orchestrator.store.leftovers import leftovers
from orchestrator.store.mirror import Mirror
from orchestrator.store.searches import record_proposal
from orchestrator.tracking import BackgroundTracker
from orchestrator.trials.running import RunningJob


@pytest.fixture
def url() -> str:
    return f"memory://bucket-{uuid.uuid4().hex}/prefix"


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that commits at once, and no MLflow."""

    def commit_all(running: RunningJob, tick: Callable[[], None], at: None) -> None:
        trained(running.store.root, running.plan)
        tick()

    monkeypatch.setattr(run, "run_trials", commit_all)
    monkeypatch.setattr(BackgroundTracker, "_deliver", lambda *_: None)


def make_plan() -> Plan:
    schedule = {"tokens_per_stage": 4, "stage_steps": 10, "pretrain_steps": 10}
    job = {"name": "small", "methods": ["explicit_cot", "stepwise"], "task": {"digits": [2, 2]}, "schedule": schedule}
    return build_plan(Job.model_validate({**job, "tracking": {"uri": "http://127.0.0.1:9"}}))


def trained(root: Path, plan: Plan, stages: int = 99) -> StageStore:
    """A store with the first stages of every trial."""
    store = StageStore(root)
    for stage in {stage.key: stage for trial in plan.trials for stage in trial.stages[:stages]}.values():
        commit_stage(store, stage, files={"model.safetensors": stage.key.encode(), "tokenizer/vocab.json": b"{}"})
    return store


def test_empty_store_begins_with_what_the_mirror_holds(tmp_path, url):
    plan = make_plan()
    old = trained(tmp_path / "old", plan)
    send(plan, Mirror(url, old))
    new = StageStore(tmp_path / "new")
    assert bring(plan, Mirror(url, new)) == len(plan.unique_stages)
    assert check_store(new, repair=False).lines == (
        f"{len(plan.unique_stages)} stages verified, 0 damaged stages found, 0 leftovers found",
    )
    assert [p.model_dump(exclude={"attempt"}) for p in frontier(plan, new)] == [
        p.model_dump(exclude={"attempt"}) for p in frontier(plan, old)
    ]
    assert bring(plan, Mirror(url, new)) == 0


def test_folder_is_a_mirror_too(tmp_path):
    plan = make_plan()
    send(plan, Mirror(f"file://{tmp_path}/mirror", trained(tmp_path / "old", plan)))
    assert bring(plan, Mirror(str(tmp_path / "mirror"), StageStore(tmp_path / "new"))) == len(plan.unique_stages)


def test_later_stages_follow_without_sending_anything_twice(tmp_path, url):
    plan = make_plan()
    store = trained(tmp_path / "old", plan, stages=1)
    mirror = Mirror(url, store)
    send(plan, mirror)
    files = fsspec.filesystem("memory")
    first = {path: files.created(path) for path in files.find(url.removeprefix("memory:/")) if "/stages/" in path}
    trained(tmp_path / "old", plan)
    send(plan, mirror)
    assert {path: files.created(path) for path in first} == first
    assert bring(plan, Mirror(url, StageStore(tmp_path / "new"))) == len(plan.unique_stages)


def test_stage_without_its_manifest_is_not_there(tmp_path, url):
    plan = make_plan()
    store = trained(tmp_path / "old", plan)
    send(plan, Mirror(url, store))
    second = plan.trials[1].stages[1]
    fsspec.filesystem("memory").rm(f"{url.removeprefix('memory:/')}/stages/{second.key}/manifest.json")
    new = StageStore(tmp_path / "new")
    bring(plan, Mirror(url, new))
    assert new.read(second.key) is None
    assert all(new.read(stage.key) for stage in plan.trials[0].stages)


def test_damaged_copy_is_refused_and_nothing_of_it_is_kept(tmp_path, url):
    plan = make_plan()
    send(plan, Mirror(url, trained(tmp_path / "old", plan)))
    files = fsspec.filesystem("memory")
    first = plan.trials[0].stages[0].key
    (weights,) = files.glob(f"{url.removeprefix('memory:/')}/stages/{first}/*/model.safetensors")
    files.pipe_file(weights, b"other weights")
    new = StageStore(tmp_path / "new")
    with pytest.raises(StoreError, match="MIR004"):
        bring(plan, Mirror(url, new))
    assert new.read(first) is None
    assert leftovers(new, first) == []


def test_what_a_search_decided_comes_with_it(tmp_path, url):
    search = {"type": "optuna", "configurations": 2, "space": {"schedule.smoothing_lambda": {"low": 1.0, "high": 8.0}}}
    job = Job.model_validate({**make_plan().job.model_dump(), "methods": ["stepwise"], "search": search})
    old, new = StageStore(tmp_path / "old"), StageStore(tmp_path / "new")
    plan = build_plan(job)
    save_job(plan, old)
    record_proposal(job, old.root, (("schedule.smoothing_lambda", 2.5),))
    send(plan, Mirror(url, old))
    Mirror(url, new).pull_records("small")
    here, there = ({p.relative_to(s.root): p.read_text() for p in s.root.rglob("jobs/small/*")} for s in (new, old))
    assert here == there != {}


def keys_at(url: str) -> set[str]:
    """The stages that a mirror in memory has."""
    found = fsspec.filesystem("memory").glob(f"{url.removeprefix('memory:/')}/stages/*/manifest.json")
    return {path.split("/")[-2] for path in found}


@pytest.mark.parametrize("words", ["extend small --seeds 1", "fork {stage} --set training.learning_rate=2e-4"])
def test_verbs_that_train_copy_what_they_commit(tmp_path, url, stepwise, no_ray, monkeypatch, words):
    plan = make_plan()
    store = trained(tmp_path / "store", plan)
    save_job(plan, store)
    monkeypatch.setenv("STEPWISE_MIRROR", url)
    finished = stepwise(*words.format(stage=plan.trials[1].stages[1].key).split(), "--store", store.root)
    assert finished.code == 0, finished.out + finished.err
    new = set(store.stage_keys()) - set(plan.unique_stages)
    assert new
    assert new <= keys_at(url)


@pytest.mark.parametrize("kind", ["job", "fork"])
def test_job_comes_back_by_its_name(tmp_path, url, stepwise, no_ray, kind):
    plan, old = make_plan(), StageStore(tmp_path / "old")
    if kind == "fork":
        trial = plan.trials[1]
        plan = fork_plan(trial, trial.stages[1], (("training.learning_rate", 2e-4),), "other")
        save_fork(plan, old)
    else:
        save_job(plan, old)
    send(plan, Mirror(url, trained(old.root, plan)))
    finished = stepwise("run", plan.job.name, "--mirror", url, "--store", tmp_path / "new")
    assert finished.code == 0, finished.out + finished.err
    assert f"{len(plan.unique_stages)} stages came from {url}" in finished.out


def test_half_a_manifest_is_trained_and_mended(tmp_path, url):
    plan = make_plan()
    store = trained(tmp_path / "old", plan)
    send(plan, Mirror(url, store))
    first = f"{url.removeprefix('memory:/')}/stages/{plan.trials[0].stages[0].key}/manifest.json"
    fsspec.filesystem("memory").pipe_file(first, b'{"format": 1')
    new = StageStore(tmp_path / "new")
    assert bring(plan, Mirror(url, new)) == 0
    send(plan, Mirror(url, store))
    assert bring(plan, Mirror(url, new)) == len(plan.unique_stages)


def test_half_a_record_is_none(tmp_path, url):
    plan, old, new = make_plan(), StageStore(tmp_path / "old"), StageStore(tmp_path / "new")
    save_job(plan, old)
    fsspec.filesystem("memory").pipe_file(f"{url.removeprefix('memory:/')}/jobs/small/job.json", b'{"job": ')
    Mirror(url, new).pull_records("small")
    assert saved_plan("small", new) is None
    send(plan, Mirror(url, old))
    Mirror(url, new).pull_records("small")
    assert saved_plan("small", new) == plan


def test_write_that_is_killed_leaves_what_was_there(tmp_path, monkeypatch):
    plan, mirror = make_plan(), f"file://{tmp_path}/mirror"
    store = trained(tmp_path / "old", plan)
    save_job(plan, store)
    send(plan, Mirror(mirror, store))
    before = {path: path.read_bytes() for path in (tmp_path / "mirror").rglob("*.json")}

    def killed(files: LocalFileSystem, path: str, value: bytes) -> None:
        Path(path).write_bytes(value[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFileSystem, "pipe_file", killed)
    save_job(plan, store, (7,))
    with pytest.raises(KeyboardInterrupt):
        send(plan, Mirror(mirror, store))
    assert {path: path.read_bytes() for path in (tmp_path / "mirror").rglob("*.json")} == before


NOBODY = "http://127.0.0.1:9/bucket"


def test_mirror_that_is_away_does_not_stop_a_job_that_the_store_knows(tmp_path, stepwise, no_ray):
    plan = make_plan()
    store = trained(tmp_path / "store", plan, stages=1)
    save_job(plan, store)
    finished = stepwise("run", "small", "--mirror", NOBODY, "--store", store.root)
    assert finished.code == 0, finished.out + finished.err
    assert "going on with what this store has. error[MIR002]" in finished.out
    assert "the mirror has not got everything" in finished.out
    assert set(store.stage_keys()) == set(plan.unique_stages)


def test_mirror_that_is_away_may_hold_a_job_that_the_store_does_not_know(tmp_path, stepwise, no_ray):
    finished = stepwise("run", "small", "--mirror", NOBODY, "--store", tmp_path / "store")
    assert (finished.code, "MIR002" in finished.err, "MIR003" in finished.err) == (1, True, True)
    assert not (tmp_path / "store").exists()


@pytest.fixture
def slow(url: str) -> Iterator[Event]:
    """A bucket ``slow://`` that takes nothing until the event is set, or for 200 seconds."""
    answers = Event()

    class Slow(MemoryFileSystem):
        protocol = "slow"

        def put_file(self, *names: str, **more: object) -> None:
            answers.wait(200)
            answers.set()
            super().put_file(*names, **more)

    fsspec.register_implementation("slow", Slow, clobber=True)
    yield answers
    answers.set()


def test_neither_training_nor_its_interruption_waits_for_a_slow_mirror(tmp_path, slow, stepwise, no_ray, monkeypatch):
    plan = make_plan()
    store = trained(tmp_path / "store", plan, stages=1)
    save_job(plan, store)

    def interrupted(running: RunningJob, tick: Callable[[], None], at: None) -> None:
        trained(running.store.root, running.plan)
        tick()
        assert not slow.is_set()
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_trials", interrupted)
    monkeypatch.setattr(run, "INTERRUPTED_SECONDS", 0.1)
    finished = stepwise("run", "small", "--mirror", "slow://bucket", "--store", store.root)
    assert (finished.code, "the mirror has not got everything" in finished.out) == (130, True)
    assert not slow.is_set()


def test_end_waits_for_what_is_on_its_way(tmp_path, url):
    plan, console = make_plan(), Console(record=True)
    mirroring = Mirroring(url, trained(tmp_path / "old", plan), console)
    mirroring.begin(plan)
    mirroring.close(60)
    assert console.export_text() == ""
    assert keys_at(url) == set(plan.unique_stages)


def test_interrupted_copying_leaves_mlflow_its_turn(tmp_path, url, stepwise, no_ray, monkeypatch):
    plan = make_plan()
    store = trained(tmp_path / "store", plan)
    save_job(plan, store)
    closed = []
    close_mirror, close_tracker = BackgroundMirror.close, BackgroundTracker.close

    def interrupted(mirror: BackgroundMirror, seconds: float) -> bool:
        close_mirror(mirror, seconds)
        raise KeyboardInterrupt

    def close(tracker: BackgroundTracker, seconds: float) -> bool:
        closed.append(True)
        return close_tracker(tracker, seconds)

    monkeypatch.setattr(BackgroundMirror, "close", interrupted)
    monkeypatch.setattr(BackgroundTracker, "close", close)
    finished = stepwise("run", "small", "--mirror", url, "--store", store.root)
    assert (finished.code, closed) == (0, [True])
    assert "the mirror has not got everything" in finished.out


@pytest.mark.parametrize("mirror", ["nowhere://bucket", "gs9://x"])
def test_unknown_mirror_is_refused_before_anything_is_written(tmp_path, stepwise, mirror):
    job = tmp_path / "job.toml"
    job.write_text('name = "x"\n[task]\ndigits = [1, 2]\n')
    finished = stepwise("run", job, "--mirror", mirror, "--store", tmp_path / "store")
    assert (finished.code, "MIR001" in finished.err) == (2, True)
    assert not (tmp_path / "store").exists()
