"""Did it internalize? What report, terminal and MLflow open with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import commit_stage, metrics_of

from orchestrator.config import Job
from orchestrator.plan import Plan, build_plan
from orchestrator.results.findings import Findings
from orchestrator.results.outcome import Outcome, outcome_of
from orchestrator.store import StageStore

SCHEDULE = {"tokens_per_stage": 5, "stage_steps": 100, "pretrain_steps": 100, "consolidation_stages": 2}


def plan_of(**fields: Any) -> Plan:
    return build_plan(Job.model_validate({"name": "x", "task": {"digits": [3, 2]}, "schedule": SCHEDULE} | fields))


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


def ended(store: StageStore, plan: Plan, *ends: list[tuple[float, float]]) -> Outcome | None:
    """The outcome once every stepwise trial's stages are committed with these exact matches and losses."""
    trials = [trial for trial in plan.trials if trial.method == "stepwise"]
    for trial, stages in zip(trials, ends, strict=True):
        for stage, (exact_match, loss) in zip(trial.stages, stages, strict=False):
            measured = metrics_of(stage, exact_match, validation_loss=loss, examples=1000)
            commit_stage(store, stage, measured)
    return outcome_of(Findings.of(plan, store))


GOOD = [(0.95, 0.1), (0.9, 0.2), (0.6, 0.5), (0.4, 0.9), (0.7, 0.5), (0.99, 0.05)]
RISING = [*GOOD[:4], (0.3, 0.9), (0.434, 0.7)]
FLAT = [*GOOD[:4], (0.801, 0.4), (0.8, 0.4)]
LOST = [*GOOD[:3], (0.02, 1.5), (0.02, 1.5), (0.02, 1.5)]


def test_a_trial_that_gets_what_is_asked_with_every_token_removed_internalized(store):
    outcome = ended(store, plan_of(), GOOD)
    assert outcome.line == "Did it internalize? Yes: exact match 0.990 with all 10 CoT tokens removed"
    assert outcome.command == ""


def test_a_trial_that_still_rises_has_not_yet_and_the_command_goes_on(store):
    outcome = ended(store, plan_of(), RISING)
    assert outcome.value == "Not yet"
    assert outcome.detail == "still rising: 0.434 with all 10 CoT tokens removed, 0.300 a stage before; 0.95 asked"
    assert outcome.command == "stepwise run x schedule.consolidation_stages=4"


def test_a_trial_that_levelled_off_did_not(store):
    outcome = ended(store, plan_of(), FLAT)
    assert outcome.line.startswith("Did it internalize? No: levelled off: 0.800 with all 10 CoT tokens removed")
    assert outcome.command == "stepwise run x schedule.tokens_per_stage=2.5"


def test_a_lost_trial_says_where_it_was_lost(store):
    outcome = ended(store, plan_of(), LOST)
    assert outcome.line == (
        "Did it internalize? No: lost: 0.020 with all 10 CoT tokens removed, 0.600 with 5; 0.95 asked"
    )


def test_an_unfinished_trial_is_still_training(store):
    outcome = ended(store, plan_of(), GOOD[:3])
    assert outcome.line == "Did it internalize? Not yet: still training: 0.600 with 5 of 10 CoT tokens removed"
    assert outcome.command == "stepwise run x"


def test_several_seeds_are_counted_and_those_that_did_not_arrive_are_told(store):
    outcome = ended(store, plan_of(seeds=[0, 1, 2]), GOOD, RISING, [*GOOD[:5], (0.97, 0.1)])
    assert outcome.value == "In 2 of 3 trials"
    assert outcome.detail.startswith(
        "exact match 0.970 to 0.990 with all 10 CoT tokens removed; 1 not yet, still rising"
    )
    assert outcome.command == "stepwise run x schedule.consolidation_stages=4"


def test_of_several_seeds_that_fell_short_the_best_is_told(store):
    outcome = ended(store, plan_of(seeds=[0, 1, 2]), LOST, FLAT, LOST)
    assert outcome.line == (
        "Did it internalize? No: 3 trials, the best of them levelled off: 0.800 with all 10 CoT tokens removed; "
        "0.95 asked"
    )


def test_a_trial_without_consolidation_is_not_said_to_rise(store):
    outcome = ended(store, plan_of(schedule=SCHEDULE | {"consolidation_stages": 0}), GOOD[:4])
    assert outcome.detail == "nothing consolidated: 0.400 with all 10 CoT tokens removed; 0.95 asked"
    assert outcome.command == "stepwise run x schedule.consolidation_stages=2"


def test_baselines_alone_are_not_asked(store):
    plan = plan_of(methods=["no_cot"])
    commit_stage(store, plan.trials[0].stages[0], metrics_of(plan.trials[0].stages[0]))
    assert outcome_of(Findings.of(plan, store)) is None


def test_a_trial_that_never_knew_is_told_to_learn_first(store):
    outcome = ended(store, plan_of(), [(0.1, 1.0)] * 6)
    assert outcome.detail == "never half of the answers right, not with the whole CoT either; 0.95 asked"
    assert outcome.command == "stepwise run x schedule.pretrain_steps=200"
