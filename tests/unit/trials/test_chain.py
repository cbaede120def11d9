"""A trial as a chain of attempts: what is tried after a failure, and that a killed run decides the same again."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from unittest.mock import ANY

import pytest
from builders import WEIGHTS, commit_stage, metrics_of
from rich.console import Console

from orchestrator.config import Job
from orchestrator.method.stage import PASSED, StageMetrics, Verdict
from orchestrator.plan import Plan, PlannedStage, build_plan
from orchestrator.report.terminal.live import live_table
from orchestrator.results.frontier import frontier
from orchestrator.results.state import TrialStatus
from orchestrator.store import Manifest, StageStore
from orchestrator.trials.chain import Chain
from orchestrator.trials.progress import TrialProgress
from orchestrator.trials.walk import proceed, replay

Script = Callable[[PlannedStage, int], Verdict]
"""The verdict on a stage, given how often its index was tried before."""


class Killed(Exception):
    pass


class ScriptedRunner:
    """Commits what a script says, in a real store; killed after ``lives`` attempts."""

    def __init__(self, store: StageStore, script: Script, lives: int = 1000) -> None:
        self.store, self.script, self.lives = store, script, lives

    def goes_on(self) -> bool:
        return True

    def adopt(self, stage: PlannedStage) -> Manifest | None:
        return self.store.manifest(stage)

    def attempt(self, stage: PlannedStage, chain: Chain) -> Manifest:
        if not self.lives:
            raise Killed
        self.lives -= 1
        before = sum(tried.stage.index == stage.index for tried in chain.attempts)
        verdict = self.script(stage, before)
        files = WEIGHTS if verdict in PASSED else {}
        return commit_stage(self.store, stage, metrics(stage, verdict), verdict, f"scripted {verdict}", files)


def metrics(stage: PlannedStage, verdict: Verdict) -> StageMetrics:
    if verdict in ("diverged", "stuck"):
        return metrics_of(stage, 0.0, steps_taken=5, detector="A1")
    return metrics_of(stage, 0.9, steps_taken=stage.spec.steps)


def make_plan(method: str = "stepwise", **stability: object) -> Plan:
    schedule = {"tokens_per_stage": 2, "stage_steps": 20, "pretrain_steps": 20, "consolidation_stages": 2}
    job = {"name": "x", "methods": [method], "task": {"digits": [2, 2]}, "schedule": schedule}
    return build_plan(Job.model_validate({**job, "stability": stability}))


def walked(plan: Plan, store: StageStore, script: Script, lives: int = 1000) -> Chain:
    """As ``trials.walk`` does, which needs torch only for what it calls."""
    from orchestrator.trials.walk import walk

    return list(walk(plan.trials[0], ScriptedRunner(store, script, lives)))[-1]


def fails(index: int, times: int, verdict: Verdict = "diverged") -> Script:
    return lambda stage, before: verdict if stage.index == index and before < times else "good"


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


def test_healthy_trial_takes_its_planned_stages(store):
    plan = make_plan()
    chain = walked(plan, store, fails(0, 0))
    assert [tried.stage for tried in chain.attempts] == list(plan.trials[0].stages)
    assert (chain.finished, chain.next, chain.given_up) == (True, None, None)


def test_stuck_consolidation_goes_back_before_the_removals_that_lost_it(store):
    trial = make_plan(max_compute=100).trials[0]
    chain = Chain.begin(trial)
    for right in (0.9, 0.8, 0.3, 0.2, 0.1, 0.1, 0.0):
        verdict = "good" if right else "stuck"
        found = metrics(chain.next, verdict).model_copy(update={"exact_match": right})
        chain = proceed(chain, commit_stage(store, chain.next, found, verdict, "scripted"))
    assert chain.attempts[-1].stage.spec.consolidation
    assert chain.next.index == 2
    assert chain.next.parent == trial.stages[1].key
    assert chain.next.spec.steps == 4 * trial.stages[2].spec.steps


def test_failed_stage_is_tried_again_in_place_with_another_seed(store):
    plan = make_plan()
    chain = walked(plan, store, fails(3, 1))
    planned = plan.trials[0].stages
    first, second = (tried.stage for tried in chain.attempts if tried.stage.index == 3)
    assert first == planned[3]
    assert second.parent == first.parent
    assert second.spec.seed != first.spec.seed
    assert (second.spec.steps, second.spec.removals) == (first.spec.steps, first.spec.removals)
    assert second.spec.warmup_steps == 1
    assert chain.finished
    after = chain.standing[4].stage
    assert (after.spec.seed, after.spec.warmup_steps, after.parent) == (planned[4].spec.seed, 0, second.key)


def test_stubborn_stage_is_slowed_down_and_then_gone_back_over(store):
    chain = walked(make_plan(max_compute=100), store, fails(4, 4))
    tried = [(tried.stage.index, str(tried.pace)) for tried in chain.attempts[4:]]
    assert tried[:6] == [
        (4, "as configured"),
        (4, "as configured"),
        (4, "Δ x 0.5"),
        (4, "Δ x 0.25, rate x 0.5, steps x 2"),
        (3, "Δ x 0.5"),
        (4, "Δ x 0.5"),
    ]
    slow = next(tried.stage for tried in chain.attempts if str(tried.pace) == "Δ x 0.25, rate x 0.5, steps x 2")
    planned = chain.trial.stages[4]
    assert slow.spec.steps == 8 * planned.spec.steps
    assert [removal.step for removal in slow.spec.removals] == [8 * r.step for r in planned.spec.removals]
    assert slow.spec.removed_to == planned.spec.removed_to
    assert slow.spec.rate_from == 0.5
    assert chain.finished


def test_stages_that_stand_follow_on_each_other(store):
    chain = walked(make_plan(max_compute=100), store, fails(4, 4))
    for before, after in pairwise(tried.stage for tried in chain.standing):
        assert after.parent == before.key
        assert after.spec.first_step == before.spec.first_step + before.spec.steps
        assert after.spec.removed_from == before.spec.removed_to


def test_hopeless_trial_gives_up_and_keeps_its_frontier(store):
    plan = make_plan(max_compute=100)
    chain = walked(plan, store, fails(3, 1000))
    assert chain.given_up
    assert len(chain.given_up.ladder_tried) == 7
    assert [tried.stage.index for tried in chain.standing] == [0, 1, 2]
    points = frontier(plan, store)
    assert [(p.stage, p.verdict) for p in points] == [(0, "good"), (1, "good"), (2, "good"), (3, "diverged")]
    assert points[-1].restarts == 6


def test_trial_that_gave_up_while_gone_back_keeps_the_furthest_it_came(store):
    def script(stage: PlannedStage, before: int) -> Verdict:
        return "stuck" if stage.index == 3 or (stage.index == 2 and before) else "good"

    chain = walked(make_plan(max_compute=100), store, script)
    assert chain.given_up
    assert [tried.stage.index for tried in chain.standing] == [0, 1, 2]
    assert chain.obstacle.stage.index == 3


def test_suspect_stage_is_walked_on_from_but_not_gone_back_to(store):
    def script(stage: PlannedStage, before: int) -> Verdict:
        if stage.index == 2:
            return "suspect"
        return "diverged" if stage.index == 3 and not before else "good"

    chain = walked(make_plan(), store, script)
    assert [tried.stage.index for tried in chain.attempts][:6] == [0, 1, 2, 3, 2, 3]
    assert chain.finished
    assert chain.history.stages == ()


@pytest.mark.parametrize(("method", "stability"), [("no_cot", {}), ("stepwise", {"restarts": False})])
def test_baselines_and_trials_without_restarts_end_at_their_first_failure(store, method, stability):
    chain = walked(make_plan(method, **stability), store, fails(2, 1))
    assert len(chain.attempts) == 3
    assert "not to be restarted" in chain.given_up.reason


def test_compute_budget_ends_the_restarts(store):
    plan = make_plan(max_compute=1)
    chain = walked(plan, store, fails(6, 1000, "stuck"))
    assert "to repeat, more than 1 times" in chain.given_up.reason


@pytest.mark.parametrize("script", [fails(4, 4), fails(3, 1000)], ids=["rewinds", "gives up"])
def test_run_killed_anywhere_repeats_the_uninterrupted_history(tmp_path, script):
    plan = make_plan(max_compute=100)
    whole = walked(plan, StageStore(tmp_path / "whole"), script)
    history = [(tried.stage, tried.pace, tried.manifest.verdict, tried.answer) for tried in whole.attempts]
    for lives in range(len(history)):
        store = StageStore(tmp_path / str(lives))
        with pytest.raises(Killed):
            walked(plan, store, script, lives)
        assert len(replay(plan.trials[0], store).attempts) == lives
        chain = walked(plan, store, script)
        assert [(t.stage, t.pace, t.manifest.verdict, t.answer) for t in chain.attempts] == history


def test_replay_reads_what_was_walked(store):
    plan = make_plan(max_compute=100)
    chain = walked(plan, store, fails(4, 4))
    assert replay(plan.trials[0], store) == chain


def test_live_table_counts_restarts_within_80_columns(store):
    plan = make_plan(max_compute=100)
    with pytest.raises(Killed):
        walked(plan, store, fails(4, 4), lives=9)
    chain = replay(plan.trials[0], store)
    progress = TrialProgress(stage_key=chain.next.key, step=5, removed_tokens=3, steps_per_second=20.0, at=time.time())
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(live_table([TrialStatus(chain, progress)], 21))
    *_, row, total = console.file.getvalue().splitlines()
    assert row.split() == ["Stepwise", "2", "4", "0", "4/8", "3/8", "20.0", ANY, "4", "0.900", "▇▇▇▇", "training"]
    assert total.startswith("1 trial: 1 training; 4 restarts; about ")
