"""A job that was begun does not go on as something else without being told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from builders import commit_stage

from orchestrator.config import Job
from orchestrator.errors import InputError
from orchestrator.plan import Plan, PlannedStage, build_plan
from orchestrator.ray.train import TrialTask
from orchestrator.store import StageStore, plan_for, save_job
from orchestrator.trials.drift import other_fields, refuse_drift
from orchestrator.trials.running import RunningJob


def make_plan(name: str = "small", seeds: tuple[int, ...] = (0,), **training: float) -> Plan:
    schedule = {"tokens_per_stage": 4, "stage_steps": 20, "pretrain_steps": 10}
    job = {"name": name, "task": {"digits": [2, 2]}, "schedule": schedule, "training": training, "seeds": seeds}
    return build_plan(Job.model_validate(job))


def commit(store: StageStore, plan: Plan, stages: int, **versions: str) -> None:
    """The first stages of the first trial, trained with these versions."""
    save_job(plan, store)
    finish(store, plan.trials[0].stages[:stages], **versions)


def finish(store: StageStore, stages: Sequence[PlannedStage], **versions: str) -> None:
    for stage in stages:
        commit_stage(store, stage)
        path = store.stages / stage.key / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["versions"].update(versions)
        path.write_text(json.dumps(manifest))


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path)


def test_same_job_goes_on(store: StageStore) -> None:
    commit(store, make_plan(), 2)
    refuse_drift(RunningJob(make_plan(), store), accept=False)


@pytest.mark.parametrize("library", ["torch", "transformers", "tokenizers", "numpy", "method"])
def test_other_library_or_code_is_refused_with_what_differs(store: StageStore, library: str) -> None:
    commit(store, make_plan(), 2, **{library: "0.9"})
    with pytest.raises(InputError, match=rf"RUN005.*{library}: 0\.9 -> .*--accept-drift"):
        refuse_drift(RunningJob(make_plan(), store), accept=False)


def test_other_fields_are_refused_with_their_diff(store: StageStore) -> None:
    commit(store, make_plan(), 2)
    with pytest.raises(InputError, match=r"training\.learning_rate: 5e-05 -> 0\.001"):
        refuse_drift(RunningJob(make_plan(learning_rate=1e-3), store), accept=False)


def test_fields_in_which_a_job_ran_otherwise_are_named(store: StageStore) -> None:
    save_job(make_plan(), store)
    assert other_fields(make_plan(), store) == ()
    assert other_fields(make_plan(seeds=(0, 1)), store) == ()
    assert other_fields(make_plan(learning_rate=1e-5), store) == ("training.learning_rate: 5e-05 -> 1e-05",)


def test_report_is_not_made_of_a_job_that_ran_otherwise_under_its_name(
    store: StageStore, tmp_path: Path, stepwise: Callable
) -> None:
    commit(store, make_plan(), 3)
    job = tmp_path / "job.toml"
    job.write_text(
        'name = "small"\n[task]\ndigits = [2, 2]\n'
        "[schedule]\ntokens_per_stage = 4\nstage_steps = 20\npretrain_steps = 10\n"
    )
    refused = stepwise("report", job, "training.learning_rate=1e-3", "--store", store.root)
    assert refused.code == 2
    assert "RUN008" in refused.err and "training.learning_rate: 5e-05 -> 0.001" in refused.err
    assert not (tmp_path / "jobs/small/report").exists()
    for words in (("small",), (job,), (job, "seeds=[0, 1]")):
        made = stepwise("report", *words, "--store", store.root)
        assert made.code == 0, made.err
        assert "still to train; `stepwise run small` goes on" in made.out


def test_peft_counts_where_it_is_used(store: StageStore) -> None:
    commit(store, make_plan(), 2, peft="0.9")
    refuse_drift(RunningJob(make_plan(), store), accept=False)
    model = {"type": "pretrained", "name": "some/model", "lora_rank": 4}
    whole = Job.model_validate(make_plan("lora").job.model_dump() | {"model": model})
    commit(store, build_plan(whole, 8), 2, peft="0.9")
    with pytest.raises(InputError, match=r"RUN005.*peft: 0\.9 -> "):
        refuse_drift(RunningJob(build_plan(whole, 8), store), accept=False)


def text_plan(folder: Path, answer: int) -> Plan:
    """A job whose files, always the same ones, hold other answers."""
    for split in ("train", "valid"):
        (folder / f"{split}.txt").write_text(f"1 + 1||1 1 1 #### {answer}\n" * 64)
    task = {"type": "text", "train": str(folder / "train.txt"), "validation": str(folder / "valid.txt")}
    schedule = {"tokens_per_stage": 1, "stage_steps": 20, "pretrain_steps": 10}
    return build_plan(Job.model_validate({"name": "mine", "task": task, "schedule": schedule}))


@pytest.mark.parametrize(("stages", "asks"), [(0, False), (2, True), (None, True)], ids=["new", "half-way", "finished"])
def test_other_data_under_the_same_path_is_refused(store: StageStore, stages: int | None, asks: bool) -> None:
    commit(store, text_plan(store.root, 2), stages)
    later = text_plan(store.root, 3)
    if asks:
        with pytest.raises(InputError, match=r"RUN005.*task\.train: .* -> .*task\.validation: "):
            refuse_drift(RunningJob(later, store), accept=False)
    else:
        refuse_drift(RunningJob(later, store), accept=False)


@pytest.mark.parametrize(("verb", "words"), [("run", ["was begun as"]), ("extend", ["adds to what was", "--seeds=1"])])
def test_other_data_of_a_finished_job_is_named_before_anything_is_trained(
    store: StageStore, stepwise: Callable, verb: str, words: list[str]
) -> None:
    commit(store, text_plan(store.root, 2), None)
    job = store.root / "mine.toml"
    job.write_text(
        f'name = "mine"\n[task]\ntype = "text"\ntrain = "{store.root}/train.txt"\n'
        f'validation = "{store.root}/valid.txt"\n'
        "[schedule]\ntokens_per_stage = 1\nstage_steps = 20\npretrain_steps = 10\n"
    )
    text_plan(store.root, 3)
    said, *options = words
    finished = stepwise(verb, job, *options, "--store", store.root)
    assert finished.code == 2
    assert finished.err.startswith(f"error[RUN005] mine: {said} something else: task.train: ")
    if verb == "extend":
        looked = stepwise(verb, job, *options, "--dry-run", "--accept-drift", "--store", store.root)
        assert "RUN003" in looked.err and not (store.root / "jobs" / "mine" / "drift.json").exists()


def test_other_data_under_a_search_is_refused_once_optuna_has_proposed(store: StageStore) -> None:
    from orchestrator.ray.optuna import GroupSearch

    space = {"training.learning_rate": {"low": 1e-4, "high": 1e-2}}
    search = {"type": "optuna", "configurations": 2, "space": space}

    def plan(answer: int) -> Plan:
        job = text_plan(store.root, answer).job
        return plan_for(Job.model_validate(job.model_dump() | {"search": search}), store)

    begun = plan(2)
    save_job(begun, store)
    asked = GroupSearch(begun, begun.job.search, store, store.root).suggest("first")
    trial, _ = TrialTask(**asked).load()
    finish(store, trial.stages[:1])
    with pytest.raises(InputError, match=r"RUN005.*task\.train: .* -> .*task\.validation: "):
        refuse_drift(RunningJob(plan(3), store), accept=False)


def test_seeds_added_to_what_is_finished_are_compared_with_it(store: StageStore) -> None:
    commit(store, make_plan(), 4, torch="0.9")
    longer = make_plan(seeds=(0, 1))
    refuse_drift(RunningJob(longer, store), accept=False)
    with pytest.raises(InputError, match=r"RUN005.*adds to what was.*torch: 0\.9 -> "):
        refuse_drift(RunningJob(longer, store), accept=False, joins=True)


def test_fork_asks_before_it_goes_on_with_other_libraries(store: StageStore, stepwise) -> None:
    commit(store, make_plan(), 4, numpy="0.9")
    finished = stepwise(
        "fork", "small:stepwise-seed0:1", "--set", "training.learning_rate=0.001", "--store", store.root
    )
    assert finished.code == 2
    assert finished.err.startswith("error[RUN005] small-fork-")
    assert "numpy: 0.9 -> " in finished.err


def test_accepted_drift_is_recorded_and_not_asked_again(store: StageStore) -> None:
    commit(store, make_plan(), 2, torch="0.9")
    refuse_drift(RunningJob(make_plan(), store), accept=True)
    (entry,) = json.loads((store.root / "jobs" / "small" / "drift.json").read_text())
    assert entry["lines"][0].startswith("torch: 0.9 -> ")
    refuse_drift(RunningJob(make_plan(), store), accept=False)


@pytest.mark.parametrize(
    ("name", "seeds", "stages"),
    [("small", (0, 1), 2), ("other", (0,), 2), ("small", (0,), 0), ("small", (0,), 4)],
    ids=["another seed beside it", "another name", "nothing committed", "finished"],
)
def test_what_leaves_nothing_half_way_is_no_drift(
    store: StageStore, name: str, seeds: tuple[int, ...], stages: int
) -> None:
    assert len(make_plan().trials[0].stages) == 4
    commit(store, make_plan(), stages)
    rate = {} if seeds == (0, 1) else {"learning_rate": 1e-3}
    refuse_drift(RunningJob(make_plan(name, seeds, **rate), store), accept=False)


def test_front_door_refuses_before_it_starts_anything(store: StageStore, stepwise, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        'name = "small"\n[task]\ndigits = [2, 2]\n'
        "[schedule]\ntokens_per_stage = 4\nstage_steps = 20\npretrain_steps = 10\n"
    )
    commit(store, make_plan(), 2)
    finished = stepwise("run", job, "training.learning_rate=0.001", "--store", store.root)
    assert finished.code == 2
    assert finished.err.startswith("error[RUN005] small: was begun as something else")
    assert "training.learning_rate: 5e-05 -> 0.001" in finished.err
