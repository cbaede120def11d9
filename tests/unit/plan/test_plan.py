"""From a job to trials and stages: equal work for every method, and keys that change only with the numbers."""

from __future__ import annotations

import builtins
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Job, PretrainedModel
from orchestrator.identity import field_diff
from orchestrator.plan import Trial, build_plan
from orchestrator.plan.content import model_content
from orchestrator.plan.plan import estimated_total_tokens
from orchestrator.stability import Pace

METHODS = ["no_cot", "explicit_cot", "stepwise"]
LINEAR = {"tokens_per_stage": 2, "stage_steps": 50, "pretrain_steps": 30, "consolidation_stages": 2}
REFERENCE = {"type": "reference", "tokens_per_stage": 8, "pretrain_epochs": 1, "consolidation_stages": 2}


def make_job(**tables: Any) -> Job:
    job = {"name": "x", "methods": METHODS, "task": {"digits": [3, 2]}, "schedule": LINEAR}
    return Job.model_validate(job | tables)


def trials(**tables: Any) -> dict[str, Trial]:
    return {trial.name.removesuffix("-seed0"): trial for trial in build_plan(make_job(**tables)).trials}


def keys(**tables: Any) -> dict[str, list[str]]:
    return {name: [stage.key for stage in trial.stages] for name, trial in trials(**tables).items()}


@pytest.mark.parametrize(
    "schedule",
    [
        LINEAR,
        REFERENCE,
        {"stage_steps": 100},
        {"tokens_per_stage": 0.5, "stage_steps": 7},
        {"tokens_per_stage": 1, "stage_epochs": 0.5, "remove_all_beyond": 5, "removal_side": "right"},
    ],
)
def test_every_method_takes_as_many_steps_as_stepwise_stage_by_stage(schedule):
    steps = {name: [stage.spec.steps for stage in trial.stages] for name, trial in trials(schedule=schedule).items()}
    assert steps["no_cot"] == steps["explicit_cot"] == steps["stepwise"]


def test_methods_differ_in_what_is_removed():
    removed = {name: [stage.spec.removed_to for stage in trial.stages] for name, trial in trials().items()}
    assert removed["stepwise"] == [0, 0, 2, 4, 6, 8, 10, 10, 10]
    assert set(removed["no_cot"]) == {10}
    assert set(removed["explicit_cot"]) == {0}


def test_only_stepwise_smooths_and_only_after_its_explicit_stage():
    planned = trials(schedule=LINEAR | {"smoothing_lambda": 2.0})
    lambdas = {name: [stage.spec.smoothing_lambda for stage in trial.stages] for name, trial in planned.items()}
    assert set(lambdas["no_cot"] + lambdas["explicit_cot"] + lambdas["stepwise"][:1]) == {float("inf")}
    assert set(lambdas["stepwise"][1:]) == {2.0}


def test_stages_of_a_trial_follow_on_each_other():
    for trial in trials().values():
        assert trial.stages[0].parent is None
        for before, after in pairwise(trial.stages):
            assert after.parent == before.key
            assert after.spec.first_step == before.spec.first_step + before.spec.steps
            assert after.spec.removed_from == before.spec.removed_to
        assert len({stage.key for stage in trial.stages}) == len(trial.stages)


@pytest.mark.parametrize("schedule", [LINEAR, REFERENCE])
def test_explicit_cot_and_stepwise_share_their_pretraining_and_nothing_else(schedule):
    planned = build_plan(make_job(schedule=schedule))
    by_method = keys(schedule=schedule)
    assert by_method["explicit_cot"][0] == by_method["stepwise"][0]
    assert planned.shared == {by_method["stepwise"][0]}
    assert len(planned.unique_stages) == sum(map(len, by_method.values())) - 1


def test_without_pretraining_nothing_is_shared():
    assert build_plan(make_job(schedule={"tokens_per_stage": 2, "stage_steps": 50})).shared == set()


@pytest.mark.parametrize(
    "change", [{"smoothing_lambda": 1.0}, {"tokens_per_stage": 5}, {"removal_side": "right"}, {"keep_position": True}]
)
def test_schedule_change_keeps_the_explicit_stage_and_changes_the_others(change):
    before, after = keys()["stepwise"], keys(schedule=LINEAR | change)["stepwise"]
    assert before[0] == after[0]
    assert set(before[1:]).isdisjoint(after[1:])


def test_more_consolidation_keeps_every_stage_before_it():
    before, after = keys()["stepwise"], keys(schedule=LINEAR | {"consolidation_stages": 5})["stepwise"]
    assert after[: len(before)] == before
    assert len(after) == len(before) + 3


@pytest.mark.parametrize(
    "tables",
    [
        {"name": "another-name"},
        {"tracking": {"uri": "http://elsewhere:5000", "experiment": "other"}},
        {"resources": {"workers": 2, "cpus_per_worker": 3, "gpus_per_worker": 1, "max_concurrent_trials": 1}},
        {"version": 1},
        {"training": {"learning_rate": 5e-5, "batch_size": 32, "reset_optimizer": True, "precision": "auto"}},
        {"model": {"type": "scratch", "layers": 3, "width": 128, "heads": 4, "dropout": 0.0}},
        {"model": {}},
        {"task": {"type": "multiplication", "digits": [3, 2]}},
        {
            "schedule": LINEAR
            | {"type": "linear", "smoothing_lambda": 4, "removal_side": "left", "keep_position": False}
        },
        {"schedule": LINEAR | {"tokens_per_stage": 2.0}},
        {"seeds": [0]},
        {"stability": {"restarts": True, "max_restarts_per_stage": 0, "max_compute": 9.5}},
    ],
    ids=str,
)
def test_keys_do_not_change_with_names_places_and_spelled_out_defaults(tables):
    assert keys(**tables) == keys()


@pytest.mark.parametrize("stability", [{"restarts": False}, {"min_exact_match": 0.9}], ids=str)
def test_what_judges_a_stage_changes_the_keys_of_those_it_judges(stability):
    before, after = keys(), keys(stability=stability)
    assert (before["no_cot"], before["explicit_cot"]) == (after["no_cot"], after["explicit_cot"])
    assert before["stepwise"][:2] == after["stepwise"][:2]
    assert set(before["stepwise"][2:]).isdisjoint(after["stepwise"][2:])


def test_stage_attempted_as_planned_is_the_planned_stage():
    for trial in trials().values():
        for stage in trial.stages:
            assert stage.attempted(trial.stages[: stage.index], trial.seed, Pace(), restart=False) == stage


def test_slower_attempt_takes_its_tokens_later_and_ends_where_planned():
    *_, parent, stage = trials(schedule=LINEAR | {"consolidation_stages": 0})["stepwise"].stages
    slow = stage.attempted([parent], 7, Pace(0.5, 0.5, 2), restart=True)
    assert (slow.spec.steps, slow.spec.removed_to) == (4 * stage.spec.steps, stage.spec.removed_to)
    assert [r.step for r in slow.spec.removals] == [4 * r.step for r in stage.spec.removals]
    assert (slow.spec.rate_from, slow.spec.warmup_steps, slow.spec.seed) == (0.5, 10, 7)
    assert slow.key != stage.key and slow.parent == stage.parent


def test_adaptive_schedule_plans_the_linear_stages_as_its_budget():
    linear, adaptive = (trials(schedule=LINEAR | {"type": kind}) for kind in ("linear", "adaptive"))
    assert [s.spec.removals for s in adaptive["stepwise"].stages] == [
        s.spec.removals for s in linear["stepwise"].stages
    ]
    assert adaptive["stepwise"].stages[0].key == linear["stepwise"].stages[0].key
    assert [s.key for s in adaptive["no_cot"].stages] == [s.key for s in linear["no_cot"].stages]
    rules = [adaptive["stepwise"].rule(stage.spec) for stage in adaptive["stepwise"].stages]
    assert rules == ["hard", "hard", *["all"] * 7]


def test_other_methods_of_a_job_do_not_change_a_methods_keys():
    assert keys(methods=["stepwise"])["stepwise"] == keys()["stepwise"]


@pytest.mark.parametrize(
    "tables",
    [
        {"seeds": [1]},
        {"task": {"digits": [2, 3]}},
        {"task": {"digits": [3, 2], "train_examples": 5000}},
        {"model": {"layers": 4}},
        {"model": {"dropout": 0.1}},
        {"model": {"type": "pretrained", "name": "gpt2"}},
        {"training": {"learning_rate": 1e-4}},
        {"training": {"batch_size": 64}},
        {"training": {"reset_optimizer": False}},
        {"training": {"warmup_steps": 1}},
        {"training": {"precision": "fp32"}},
        {"evaluation": {"examples": 10}},
        {"schedule": LINEAR | {"pretrain_steps": 31}},
    ],
    ids=str,
)
def test_every_key_changes_with_what_changes_the_numbers(tables):
    before, after = (
        {key for trial in build_plan(job).trials for stage in trial.stages for key in [stage.key]}
        for job in (make_job(), make_job(**tables))
    )
    assert before.isdisjoint(after)


def test_keys_are_stable_across_processes():
    program = (
        "from orchestrator.config import Job; from orchestrator.plan import build_plan; import json, sys\n"
        "plan = build_plan(Job.model_validate_json(sys.argv[1]))\n"
        "print(json.dumps([stage.key for trial in plan.trials for stage in trial.stages]))"
    )
    words = [sys.executable, "-c", program, make_job().model_dump_json()]
    printed = subprocess.run(words, capture_output=True, check=True, text=True).stdout
    assert json.loads(printed) == [stage.key for trial in build_plan(make_job()).trials for stage in trial.stages]


def test_every_seed_and_method_is_a_trial():
    names = [trial.name for trial in build_plan(make_job(seeds=[3, 5])).trials]
    assert names == [f"{method}-seed{seed}" for seed in (3, 5) for method in METHODS]


@pytest.mark.parametrize("k", [4, 5, 7, 9, 11])
def test_removable_tokens_are_the_papers_without_a_tokenizer(k):
    scratch = make_job(task={"digits": [k, k]})
    gpt2 = make_job(task={"digits": [k, k]}, model={"type": "pretrained", "name": "gpt2"})
    assert estimated_total_tokens(scratch) == 3 * k * k + k - 6
    assert estimated_total_tokens(gpt2) == 3 * k * k + k - 5


def test_paper_job_plans_the_papers_steps(repository, stepwise, tmp_path):
    job = repository / "jobs/paper/mult_4x4.toml"
    document = json.loads(stepwise("plan", job, "--json", "--store", tmp_path / "none").out)
    (trial,) = document["trials"]
    assert document["total_tokens"] == 47
    assert [stage["removed_to"] for stage in trial["stages"]][:7] == [0, 8, 16, 24, 32, 40, 47]
    assert {stage["steps"] for stage in trial["stages"]} >= {25_250}
    assert not (tmp_path / "none").exists()


def test_plan_and_dry_run_print_every_trial(repository, stepwise, tmp_path):
    words = (repository / "jobs/quickstart.toml", "--store", tmp_path / "none")
    planned, dry = stepwise("plan", *words), stepwise("run", "--dry-run", *words)
    assert planned == dry
    assert all(f"{method}-seed1" in planned.out for method in ("no_cot", "stepwise"))
    assert not (tmp_path / "none").exists()


def test_plan_of_a_search_has_a_line_for_each_trial_in_80_columns(repository, stepwise, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    job = repository / "jobs/search_delta_lambda.toml"
    planned = json.loads(stepwise("plan", job, "--json", "--store", tmp_path / "none").out)
    lines = stepwise("plan", job, "--store", tmp_path / "none").out.splitlines()
    for trial in planned["trials"]:
        (line,) = (line for line in lines if line.startswith(f"{trial['trial']} "))
        assert f"{trial['steps']:,}" in line


def test_plan_as_json_sums_up_its_stages(repository, stepwise, tmp_path):
    words = (repository / "jobs/quickstart.toml", "--json", "--store", tmp_path / "none")
    document = json.loads(stepwise("plan", *words).out)
    stages = [stage for trial in document["trials"] for stage in trial["stages"]]
    assert document["steps"] == sum(stage["steps"] for stage in stages)
    unique = {stage["key"]: stage["steps"] for stage in stages}
    assert document["steps_left"] == sum(unique.values())
    assert document["steps_shared"] == document["steps"] - sum(unique.values())
    assert not any(stage["in_store"] for stage in stages)


def test_plan_needs_neither_torch_nor_ray_nor_mlflow(repository, tmp_path):
    program = (
        "import sys; from orchestrator.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'ray', 'mlflow', 'matplotlib'} & sys.modules.keys()\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    words = ["plan", str(repository / "jobs/quickstart.toml"), "--json", "--store", str(tmp_path / "none")]
    finished = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=Path.cwd())
    assert json.loads(finished.stdout)["job"] == "quickstart"
    assert finished.stderr.strip() == "[]"


def test_field_diff_has_one_line_for_every_leaf_that_differs():
    left = {"a": {"x": 1, "same": 2}, "list": [1, math.inf], "gone": True}
    right = {"a": {"x": 2, "same": 2}, "list": [1], "new": "Infinity"}
    assert list(field_diff(left, right)) == [
        "a.x: 1 -> 2",
        "gone: true -> (default)",
        "list: [1, inf] -> [1]",
        'new: (default) -> "Infinity"',
    ]


FIRST_QUICKSTART = {
    "name": "quickstart",
    "methods": ["no_cot", "explicit_cot", "stepwise"],
    "seeds": [1],
    "task": {"digits": [3, 2]},
    "model": {"layers": 2, "width": 128, "heads": 4},
    "schedule": {
        "tokens_per_stage": 2,
        "stage_steps": 600,
        "pretrain_steps": 1300,
        "consolidation_stages": 4,
        "cooldown_stages": 3,
    },
    "training": {"learning_rate": 7e-4, "batch_size": 64, "warmup_steps": 20, "reset_optimizer": False},
}
"""The job of jobs/quickstart.toml in version 0.1."""


def test_keys_of_the_first_quickstart_are_as_they_ever_were():
    plan = build_plan(Job.model_validate(FIRST_QUICKSTART))
    assert {trial.method: trial.stages[-1].key for trial in plan.trials} == {
        "no_cot": "84d5cf7068d32b3d451a0b9bba8d9cce",
        "explicit_cot": "31e9de455909a6d0e9ac0f44204e3379",
        "stepwise": "dcb0ceb0234e0cc7d4562a04edb02119",
    }


def test_key_of_a_consolidation_says_whether_a_cooldown_is_to_come():
    without, before_one = (
        [
            stage.key
            for stage in trials(schedule=LINEAR | {"cooldown_stages": n, "consolidation_stages": 3})["stepwise"].stages
        ]
        for n in (0, 1)
    )
    assert without[:-3] == before_one[:-3]
    assert set(without[-3:]).isdisjoint(before_one[-3:])


def test_key_of_an_adaptive_consolidation_says_where_it_ends():
    def last(**changes):
        schedule = LINEAR | {"type": "adaptive", "consolidation_stages": 3} | changes.pop("schedule", {})
        return trials(schedule=schedule, **changes)["stepwise"].stages[-3].key

    ends_at_target = last()
    assert last(schedule={"cooldown_stages": 2}) != ends_at_target
    assert last(stability={"min_exact_match": 0.9}) != ends_at_target


def test_local_model_is_read_once_and_again_when_a_file_of_it_changes(tmp_path, monkeypatch):
    read = []
    opened = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda path, *how, **so: read.append(Path(path).name) or opened(path, *how, **so)
    )
    for name in ("config.json", "model.safetensors", "notes.txt"):
        (tmp_path / name).write_text("one")
    model = PretrainedModel(name=str(tmp_path))
    first, again = model_content(model), model_content(model)
    assert (first, read) == (again, ["config.json", "model.safetensors"])
    (tmp_path / "model.safetensors").write_text("three")
    assert model_content(model) != first
