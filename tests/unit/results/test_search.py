"""Search without Ray: configurations, names, shared work, objective, pruning, forks; commands in this process."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import commit_stage, metrics_of
from rich.console import Console

from orchestrator.commands.given import named_plan
from orchestrator.config import Job, Search, load_job
from orchestrator.errors import InputError, Problem
from orchestrator.method.stage import Verdict
from orchestrator.plan import Plan, PlannedStage, Trial, build_plan, grid, read_chain
from orchestrator.plan.fork import fork_plan
from orchestrator.ray import tune
from orchestrator.ray.placement import Placement
from orchestrator.ray.train import TrialTask, goes_on
from orchestrator.report.terminal.live import live_table
from orchestrator.report.terminal.tables import standings_table, summary_table
from orchestrator.results.compare import comparison
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import best_point, frontier, points_of
from orchestrator.results.pruning import Rung, reason_to_stop, rungs
from orchestrator.results.ranking import best_line, standings
from orchestrator.results.state import TrialStatus
from orchestrator.results.winners import full_cot_rates, winners
from orchestrator.store import (
    Manifest,
    Pruned,
    StageStore,
    plan_for,
    proposals,
    pruned_trials,
    record_proposal,
    record_pruned,
    save_fork,
    save_job,
    saved_plan,
)
from orchestrator.trials.chain import Chain
from orchestrator.trials.order import in_order
from orchestrator.trials.running import RunningJob
from orchestrator.trials.walk import replay, replay_all, walk

DELTA, LAMBDA, RATE = "schedule.tokens_per_stage", "schedule.smoothing_lambda", "training.learning_rate"
GRID = {"space": {DELTA: [2, 4], LAMBDA: [4, math.inf]}}
SCHEDULE = {"stage_steps": 50, "pretrain_steps": 30, "consolidation_stages": 1}


def make_job(search: Mapping[str, Any] | None = GRID, **fields: Any) -> Job:
    job = {"name": "x", "task": {"digits": [2, 2]}, "schedule": SCHEDULE, "search": search}
    return Job.model_validate(job | fields)


def names(plan: Plan) -> list[str]:
    return [trial.name for trial in plan.trials]


def commit(
    store: StageStore,
    stages: Sequence[PlannedStage],
    match: float,
    loss: float = 0.1,
    verdict: Verdict = "good",
    rate: float = 10,
    written: float = 8,
) -> None:
    for stage in stages:
        speed = {"generated_tokens": written, "examples_per_second": rate}
        commit_stage(store, stage, metrics_of(stage, match, validation_loss=loss, **speed), verdict)


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


def job_file(folder: Path, search: str, name: str = "job.toml") -> Path:
    path = folder / name
    path.write_text(f'name = "x"\n[task]\ndigits = [2, 2]\n[search]\n{search}\n')
    return path


# Speed


def test_speeds_are_compared_with_those_of_the_same_model(store):
    plan = build_plan(make_job({"space": {"model.layers": [1, 4]}}, methods=["no_cot", "stepwise"]))
    for trial in plan.trials:
        slow = 1 if trial.job.model.layers == 1 else 8
        whole = [stage for stage in trial.stages if not stage.spec.removed_to]
        commit(store, whole, 0.9, rate=40 / slow, written=16)
        commit(store, trial.stages, 0.9, rate=80 / slow)
    points = frontier(plan, store)
    ends = [point.speedup for point in points if point.removed_tokens == point.total_tokens]
    assert ends and set(ends) == {1.0}
    assert sorted(full_cot_rates(points).values()) == [5.0, 40.0]
    assert winners(points)["best-at-2x-speed"].generated_tokens == 8


# Configuration


@pytest.mark.parametrize("written", ["schedule.tokens_per_stage = [1, 2]", '"schedule.tokens_per_stage" = [1, 2]'])
def test_dotted_and_quoted_keys_mean_the_same(tmp_path, written):
    job = load_job(job_file(tmp_path, f"[search.space]\n{written}"))
    assert job.search.space == {DELTA: (1, 2)}
    assert Job.model_validate_json(job.model_dump_json()) == job


def test_infinite_choice_survives_the_way_to_a_worker():
    job = make_job()
    assert Job.model_validate_json(job.model_dump_json()) == job


REFUSED = {
    "unknown field": ("space.schedule.token_per_stage = [1]", ["CFG032", '"schedule.tokens_per_stage"']),
    "field without table": ("space.tokens_per_stage = [1]", ["CFG032", '"schedule.tokens_per_stage"']),
    "data": ("space.task.digits = [1]", ["CFG032", "task.digits"]),
    "kind of model": ('space.model.type = ["scratch"]', ["CFG032", "model.type"]),
    "no choice": ("space.training.beta1 = []", ["search.space.training.beta1", "at least 1"]),
    "no list": ("space.training.beta1 = 0.5", ["search.space.training.beta1", "expected a list"]),
    "list in list": ("space.training.beta1 = [[1]]", ["search.space.training.beta1.0", "expected a number"]),
    "twice": ("space.training.beta1 = [0.5, 0.5]", ["training.beta1", "twice"]),
    "range in grid": ("space.training.beta1 = {low = 0.1, high = 0.9}", ["training.beta1", "grid needs a list"]),
    "range upside down": ("space.training.beta1 = {low = 0.9, high = 0.1}", ["not below"]),
    "range key": ("space.training.beta1 = {low = 0.1, high = 0.2, lg = true}", ["CFG006", "lg", '"log"']),
    "log of zero": ("space.training.weight_decay = {low = 0.0, high = 0.2, log = true}", ["above 0"]),
    "no number drawn": ('type = "random"\nspace.training.beta1 = [0.5]', ["configurations", "missing"]),
    "more than there are": (
        'type = "random"\nconfigurations = 5\nspace.training.beta1 = [0.1, 0.5]',
        ["configurations", "only 2"],
    ),
    "number of a grid": ("configurations = 2\nspace.training.beta1 = [0.1, 0.5]", ["configurations", "remove it"]),
    "grid too large": (
        "".join(f"space.training.{key} = {list(range(1, 18))}\n" for key in ("batch_size", "warmup_steps")),
        ["289", "256"],
    ),
    "no space": ('type = "grid"', ["CFG007", "search.space"]),
}


@pytest.mark.parametrize(("search", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_search_is_refused(stepwise, tmp_path, search, words):
    finished = stepwise("plan", job_file(tmp_path, search), "--store", tmp_path / "none")
    assert finished.code == 2
    assert all(word in finished.err for word in words), finished.err
    assert finished.err.count("error[") == 1


def test_every_point_is_a_whole_job_and_every_problem_is_told_once(stepwise, tmp_path):
    search = "space.schedule.tokens_per_stage = [1, 20]\nspace.training.learning_rate = [1e-3, -1]"
    finished = stepwise("plan", job_file(tmp_path, search), "--store", tmp_path / "none")
    assert (finished.code, finished.err.count("error[")) == (2, 2)
    assert "training.learning_rate" in finished.err and "20 exceeds" in finished.err


def test_fields_that_only_fit_together_may_be_searched():
    job = make_job({"type": "grid", "space": {"model.width": [96], "model.heads": [3]}})
    assert names(build_plan(job)) == ["stepwise-width96-heads3-seed0"]


def test_what_optuna_could_propose_is_checked_before(tmp_path):
    search = {"type": "optuna", "configurations": 2, "space": {RATE: {"low": 0.1, "high": 3.0}}}
    with pytest.raises(InputError, match="learning_rate"):
        build_plan(make_job(search))


def test_search_needs_stepwise():
    with pytest.raises(ValueError, match="add stepwise"):
        make_job(methods=["no_cot"])


# Configurations and names


def test_random_is_drawn_once_and_a_longer_search_begins_the_same():
    ranges = {
        DELTA: [1, 2, 4],
        RATE: {"low": 1e-4, "high": 1e-2, "log": True},
        "training.batch_size": {"low": 8, "high": 64},
    }
    few, many = (grid.configurations(Search(type="random", configurations=n, space=ranges)) for n in (4, 9))
    assert few == many[:4] and len(set(many)) == 9
    for settings in many:
        values = dict(settings)
        assert 1e-4 <= values[RATE] <= 1e-2 and len(f"{values[RATE]:g}".lstrip("0.")) <= 6
        assert isinstance(values["training.batch_size"], int)


def test_random_over_all_of_a_finite_space_is_the_grid():
    axes = {DELTA: [1, 2, 4], LAMBDA: [1, 4]}
    drawn = grid.configurations(Search(type="random", configurations=6, space=axes))
    assert set(drawn) == set(grid.configurations(Search(space=axes)))


def test_names_are_short_unique_and_safe_in_a_path():
    words = {"schedule.removal_side": ["left", "right"], "training.reset_optimizer": [True, False]}
    plan = build_plan(make_job({"space": {LAMBDA: [0.5, math.inf], RATE: [1e-5, 1.00000001e-5], **words}}))
    assert len(set(names(plan))) == len(plan.trials) == 16
    assert plan.trials[0].name == "stepwise-lambda0.5-learning_rate1e-05-side_left-reset_optimizer_true-seed0"
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for name in names(plan))


# The plan


def test_plan_has_a_trial_for_every_configuration_seed_and_method_that_differs():
    plan = build_plan(make_job(methods=["no_cot", "stepwise"], seeds=[0, 1]))
    assert len(plan.trials) == 2 * 2 + 4 * 2
    assert "no_cot-tokens_per_stage2-seed0" in names(plan)
    assert [len(group) for group in plan.groups.values()] == [2] * 4
    for trial in plan.trials:
        assert trial.job.search is None
        assert (trial.job.seeds, trial.job.methods) == ((trial.seed,), (trial.method,))


def test_stages_that_do_not_depend_on_the_settings_are_shared(stepwise, repository, tmp_path):
    plan = build_plan(make_job(seeds=[0, 1]))
    assert len({trial.stages[0].key for trial in plan.trials}) == 2
    words = (repository / "jobs/search_delta_lambda.toml", "--store", tmp_path / "none")
    document = json.loads(stepwise("plan", *words, "--json").out)
    unique = {stage["key"]: stage["steps"] for trial in document["trials"] for stage in trial["stages"]}
    assert document["steps_shared"] == document["steps"] - sum(unique.values()) > 0
    assert document["seconds_left"] < 2 * 30 * 60


def test_override_of_a_searched_field_is_refused_with_what_to_write(stepwise, repository, tmp_path):
    words = (repository / "jobs/search_delta_lambda.toml", "--store", tmp_path / "none")
    refused = stepwise("plan", *words, "schedule.tokens_per_stage=2")
    assert refused.code == 2
    assert "CFG036" in refused.err and "'search.space.schedule.tokens_per_stage=[2]'" in refused.err
    planned = json.loads(stepwise("plan", *words, "search.space.schedule.tokens_per_stage=[2]", "--json").out)
    assert len(planned["trials"]) == 4


def test_searched_trial_is_the_stage_for_stage_the_same_as_a_job_of_its_own():
    trial = next(t for t in build_plan(make_job()).trials if dict(t.settings) == {DELTA: 4, LAMBDA: 4})
    alone = build_plan(make_job(None, schedule=SCHEDULE | {"tokens_per_stage": 4, "smoothing_lambda": 4}))
    assert [s.key for s in trial.stages] == [s.key for s in alone.trials[0].stages]
    assert read_chain(json.loads(json.dumps([s.identity for s in trial.stages]))) == trial.stages


def test_trials_that_would_wait_for_the_same_stage_start_last(store):
    plan = build_plan(make_job(seeds=[0, 1]))
    first = in_order(replay_all(plan, store))[:2]
    assert {trial.seed for trial in first} == {0, 1}


# The objective


def standing_values(plan: Plan, store: StageStore, pruned: Sequence[str] = ()) -> dict[str, float | None]:
    ranked = standings(plan, frontier(plan, store), pruned)
    return {grid.sentence(standing.settings): standing.value for standing in ranked}


def test_area_counts_the_whole_cot_and_the_seeds_mean_or_worst(store):
    for aggregate, expected in (("mean", 0.6), ("worst", 0.4)):
        plan = build_plan(make_job({"space": {DELTA: [4]}, "aggregate": aggregate}, seeds=[0, 1]))
        for trial, match in zip(plan.trials, (0.8, 0.4), strict=True):
            commit(store, trial.stages, match)
        assert standing_values(plan, store) == {"tokens_per_stage=4": pytest.approx(expected)}


def test_most_tokens_removed_at_an_accuracy(store):
    plan = build_plan(make_job({"space": {DELTA: [4]}, "objective": "removed_tokens", "min_accuracy": 0.5}))
    (trial,) = plan.trials
    commit(store, trial.stages[:3], 0.9)
    assert trial.stages[2].spec.removed_to == 4
    commit(store, trial.stages[3:], 0.3)
    assert standing_values(plan, store) == {"tokens_per_stage=4": 4.0}


def test_model_to_use_gets_half_right_and_is_the_furthest_where_none_does(store):
    plan = build_plan(make_job({"space": {DELTA: [2]}}))
    (trial,) = plan.trials
    commit(store, trial.stages[:3], 0.9)
    commit(store, trial.stages[3:], 0.3)
    assert best_point(frontier(plan, store), 0.95).stage == 2
    assert best_point(frontier(plan, store), 0.25).stage == len(trial.stages) - 1
    (other,) = build_plan(make_job({"space": {DELTA: [2]}}, seeds=[1])).trials
    commit(store, other.stages, 0.3)
    assert best_point(points_of([replay(other, store)]), 0.95).stage_key == other.stages[-1].key


def test_unfinished_is_no_value_diverged_is_the_worst_and_pruned_counts_what_it_reached(store):
    plan = build_plan(make_job({"space": {DELTA: [1, 2, 4, 8]}}, stability={"restarts": False}))
    a, b, c, d = plan.trials
    commit(store, a.stages[:4], 1.0)
    commit(store, b.stages[:3], 1.0)
    commit(store, b.stages[3:4], 0.0, verdict="diverged")
    commit(store, c.stages, 0.5)
    commit(store, d.stages[:3], 0.9)
    assert standing_values(plan, store, [d.name]) == {
        "tokens_per_stage=8": pytest.approx(0.9),
        "tokens_per_stage=4": pytest.approx(0.5),
        "tokens_per_stage=2": 0.0,
        "tokens_per_stage=1": None,
    }
    ranked = standings(plan, frontier(plan, store), [d.name])
    assert best_line(plan, ranked) == "best: tokens_per_stage=8: area 0.900 (seed 0), of 3 finished configurations"


def test_configurations_of_equal_value_have_one_rank(store):
    plan = build_plan(make_job({"space": {DELTA: [1, 2, 4]}}))
    for trial, match in zip(plan.trials, (0.5, 0.9, 0.9), strict=True):
        commit(store, trial.stages[:1], 0.9)
        commit(store, trial.stages[1:], match)
    ranked = standings(plan, frontier(plan, store), ())
    console = Console(width=80, record=True)
    console.print(standings_table(plan.job.search, ranked))
    ranks = [line[0] for line in console.export_text().splitlines() if line[0].isdigit()]
    assert ranks == ["1", "1", "3"]
    assert best_line(plan, ranked).endswith("(seed 0), tied with 1 more")


# Pruning

S = tuple(((DELTA, delta),) for delta in range(9))


def rung(removed: int, *losses: float) -> Rung:
    return Rung(removed, dict(zip(S, losses, strict=False)))


@pytest.mark.parametrize(
    ("reached", "stopped"),
    [
        ([rung(1, 0.1, 1, 1, 1)], []),
        ([rung(1, 0.1, 1, 1, 1), rung(2, 0.1, 1, 1, 1)], [1, 2]),
        ([rung(1, 0.1, 0.1, 1), rung(2, 0.1, 1, 1)], [2]),
        ([rung(1, 0.1, 1), rung(2, 0.1, 1)], []),
        ([rung(1, 0.1, 0.1, 0.1), rung(2, 0.1, 0.1, 0.1)], []),
        ([rung(1, 0.1, 0.105, 1), rung(2, 0.1, 0.105, 1)], [2]),
        ([rung(1, 0.1, math.nan, math.inf), rung(2, 0.1, math.nan, math.inf)], [1, 2]),
        ([rung(1, math.inf, math.inf, math.inf), rung(2, math.inf, math.inf, math.nan)], []),
    ],
    ids=["one rung", "two rungs", "was level once", "two only", "ties", "within the margin", "not finite", "all wrong"],
)
def test_who_stops(reached, stopped):
    found = [i for i in range(3) if reason_to_stop(S[i], reached)]
    assert found == stopped


def test_rungs_are_where_every_configuration_has_removed_equally_many_and_all_seeds_are_there():
    plan = build_plan(make_job({"space": {DELTA: [1, 2, 4]}}, seeds=[0, 1]))
    everything = {stage.key: 0.1 for stage in plan.unique_stages.values()}
    assert [r.removed_tokens for r in rungs(plan, everything)] == [4, 8]
    last_seed = plan.groups[(DELTA, 2),][1]
    at_4 = next(stage.key for stage in last_seed.stages if stage.spec.removed_to == 4)
    (first, second) = rungs(plan, {key: 0.1 for key in everything if key != at_4})
    assert (len(first.losses), len(second.losses)) == (2, 3)


def test_consolidation_is_compared_with_nothing():
    plan = build_plan(make_job({"space": {DELTA: [4, 8]}}))
    recovered = {trial.stages[-1].key: 0.01 for trial in plan.trials}
    assert rungs(plan, recovered) == ()


def test_pruned_trial_is_remembered_with_its_seeds_and_taken_up_when_nothing_is_pruned(store):
    job = make_job(
        {"space": {RATE: [1e-3, 2e-3, 3e-3]}, "prune": True}, seeds=[0, 1], schedule=SCHEDULE | {DELTA[9:]: 2}
    )
    plan = build_plan(job)
    for trial in plan.trials:
        commit(store, trial.stages[:4], 0.1, loss=dict(trial.settings)[RATE] * 1000)
    good, bad = plan.trials[0], plan.trials[-1]
    assert goes_on(job, plan.total_tokens, good, store)
    assert not goes_on(job, plan.total_tokens, bad, store)
    assert list(pruned_trials(plan, store.root)) == [bad.name]
    assert "rate 0.003 stayed behind: at 4 removed" in pruned_trials(plan, store.root)[bad.name].reason
    assert bad.name not in {chain.trial.name for chain in RunningJob(plan, store).open_chains}
    assert not goes_on(job, plan.total_tokens, plan.trials[-2], store)
    every = build_plan(job.model_copy(update={"search": job.search.model_copy(update={"prune": False})}))
    assert pruned_trials(every, store.root) == {} and len(RunningJob(every, store).open_chains) == 6


def test_record_of_another_chain_prunes_nothing(store):
    plan = build_plan(make_job(GRID | {"prune": True}))
    record_pruned(plan.trials[0], store.root, Pruned(chain="another", reason=""))
    assert pruned_trials(plan, store.root) == {}


def test_plan_says_what_a_configuration_yet_to_be_proposed_costs(stepwise, tmp_path):
    search = f'type = "optuna"\nconfigurations = 5\n[search.space]\n"{DELTA}" = {{ low = 1, high = 8 }}\n'
    words = ("plan", job_file(tmp_path, search), "schedule.stage_steps=50", "seeds=[0,1]", "--store", tmp_path / "none")
    fast, slow = (build_plan(make_job(None, schedule={"tokens_per_stage": d, "stage_steps": 50})) for d in (8, 1))
    least, most = (2 * plan.trials[0].steps for plan in (fast, slow))
    planned = json.loads(stepwise(*words, "--json").out)
    assert (planned["to_propose"], planned["trials"]) == (5, [])
    assert planned["proposal"]["steps"] == [least, most] and planned["proposal"]["seconds"][0] > 0
    said = stepwise(*words).out
    assert f"5 configurations to be proposed while it runs\neach, with all its seeds and methods: {least:,} to" in said
    assert "0 trials" not in said


def test_plan_says_of_configurations_that_cost_the_same_one_figure(stepwise, tmp_path):
    search = (
        'type = "optuna"\nconfigurations = 3\n[search.space]\n"training.learning_rate" = { low = 1e-4, high = 1e-3 }'
    )
    words = ("plan", job_file(tmp_path, search), "schedule.stage_steps=50", "schedule.tokens_per_stage=8")
    [line] = [s for s in stepwise(*words, "--store", tmp_path / "s").out.splitlines() if s.startswith("each")]
    assert " to " not in line


def test_plan_of_more_corners_than_it_can_count_names_no_cost(stepwise, tmp_path):
    many = list(range(10, 27))
    space = f'"{DELTA}" = {{ low = 1, high = 8 }}\n"schedule.stage_steps" = {many}\n"{LAMBDA}" = {many}\n'
    file = job_file(tmp_path, f'type = "optuna"\nconfigurations = 3\n[search.space]\n{space}')
    planned = json.loads(stepwise("plan", file, "--json", "--store", tmp_path / "s").out)
    assert (planned["to_propose"], planned["proposal"]) == (3, None)


# The store: proposals, seeds, forks


def test_proposals_belong_to_what_is_searched(stepwise, store):
    search = {"type": "optuna", "configurations": 3, "space": {LAMBDA: [1, 4, math.inf]}}
    job = make_job(search)
    record_proposal(job, store.root, ((LAMBDA, math.inf),))
    plan = plan_for(make_job(search | {"configurations": 2}, seeds=[0, 1]), store)
    assert (names(plan), plan.to_propose) == (["stepwise-lambdainf-seed0", "stepwise-lambdainf-seed1"], 1)
    save_job(plan, store)
    assert "unfinished, 1 configuration to propose" in stepwise("status", "--store", store.root).out
    assert proposals(make_job(search, training={"learning_rate": 0.1}), store.root) == ()


def test_optuna_is_told_the_value_of_a_group_and_a_new_command_begins_with_what_is_recorded(store):
    """The searcher alone, without a cluster: this test commits the stages."""
    from orchestrator.ray.optuna import GroupSearch

    ranges = {RATE: {"low": 1e-4, "high": 1e-2, "log": True}, DELTA: [2, 4]}
    job = make_job({"type": "optuna", "configurations": 4, "space": ranges}, seeds=[0, 1])

    def finish(searcher: GroupSearch, number: int) -> list[str]:
        """Run the next trials, each as soon as it is asked for."""
        done = []
        for i in range(number):
            task = TrialTask(**searcher.suggest(f"t{i}"))
            done.append(task.trial)
            commit(store, task.load()[0].stages, 0.25 * len(proposals(job, store.root)))
            searcher.on_trial_complete(f"t{i}", {})
        return done

    first = GroupSearch(plan_for(job, store), job.search, store, store.root)
    names_before = finish(first, 3)
    assert [t.value for t in first._optuna._ot_study.trials] == [pytest.approx(0.25), None]
    again = GroupSearch(plan_for(job, store), job.search, store, store.root)
    assert [t.value for t in again._optuna._ot_study.trials] == [pytest.approx(0.25)]
    names_after = finish(again, 5)
    assert names_after[0].endswith("seed1") and not set(names_after) & set(names_before)
    assert again.suggest("t") == "FINISHED"
    plan = plan_for(job, store)
    assert (len(plan.groups), plan.to_propose, RunningJob(plan, store).open_chains) == (4, 0, [])
    assert sorted(t.value for t in again._optuna._ot_study.trials) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_walk_asks_before_every_stage(store):
    def attempt(stage: PlannedStage, chain: Chain) -> Manifest | None:
        commit(store, [stage], 0.5)
        return store.manifest(stage)

    (trial,) = build_plan(make_job(None)).trials
    asked = iter([True, True, False])
    runner = SimpleNamespace(goes_on=lambda: next(asked), adopt=store.manifest, attempt=attempt)
    assert [chain.attempts[-1].stage.index for chain in walk(trial, runner)] == [0, 1]


def test_whatever_ends_the_command_ends_tune_before_ray(store, monkeypatch):
    from orchestrator.ray import searching

    ended = []

    def search(its: searching.TuneSearch) -> list[Problem]:
        assert searching.LEAVING.wait(60)
        ended.append("Tune")
        return []

    @contextmanager
    def ray(resources: Any) -> Iterator[Placement]:
        try:
            yield Placement(1, {})
        finally:
            ended.append("Ray")

    def tick() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(searching.TuneSearch, "run", search)
    monkeypatch.setattr(tune, "local_ray", ray)
    with pytest.raises(BrokenPipeError):
        tune.run_trials(RunningJob(build_plan(make_job()), store), tick)
    assert ended == ["Tune", "Ray"]


def test_extend_adds_the_next_seeds_and_remembers_them(stepwise, store, tmp_path):
    path = job_file(tmp_path, "space.schedule.tokens_per_stage = [4, 8]")
    plan = build_plan(load_job(path))
    save_job(plan, store)
    for trial in plan.trials:
        commit(store, trial.stages, 0.5)
    dry = stepwise("extend", path, "--seeds", 2, "--store", store.root, "--dry-run")
    assert dry.code == 0 and "6 trials" in dry.out and "tokens_per_stage8-seed2" in dry.out
    longer = build_plan(plan.job.model_copy(update={"seeds": (0, 1, 2)}))
    save_job(longer, store, (1, 2))
    assert names(plan_for(load_job(path), store)) == names(longer) == names(saved_plan("x", store))
    again = stepwise("extend", "x", "--seeds", 2, "--store", store.root, "--dry-run")
    assert "they come first" in again.out and "6 trials" in again.out


def test_extend_wants_a_finished_job(stepwise, tmp_path):
    path = job_file(tmp_path, "space.schedule.tokens_per_stage = [4, 8]")
    refused = stepwise("extend", path, "--seeds", 1, "--store", tmp_path / "store", "--dry-run")
    assert (refused.code, "RUN003" in refused.err) == (2, True)


def origin(store: StageStore, **fields: Any) -> Trial:
    schedule = SCHEDULE | {"tokens_per_stage": 2, "consolidation_stages": 3, "cooldown_stages": 2}
    plan = build_plan(make_job(None, schedule=schedule, **fields))
    save_job(plan, store)
    commit(store, plan.trials[0].stages, 0.5)
    return plan.trials[0]


def removed(plan: Plan) -> list[int]:
    return [stage.spec.removed_to for stage in plan.trials[0].stages]


@pytest.mark.parametrize(
    ("index", "delta", "expected"),
    [
        (0, 4, [0, 4, 8, 8, 8, 8]),
        (3, 1, [0, 0, 2, 4, 5, 6, 7, 8, 8, 8, 8]),
        (3, 2, [0, 0, 2, 4, 6, 8, 8, 8, 8]),
        (6, 1, [0, 0, 2, 4, 6, 8, 8, 8, 8]),
    ],
)
def test_fork_goes_on_from_its_stage_with_what_is_left(store, index, delta, expected):
    trial = origin(store)
    plan = fork_plan(trial, trial.stages[index], ((DELTA, delta), (RATE, 0.01)), None)
    stages = plan.trials[0].stages
    assert removed(plan) == expected
    assert stages[: index + 1] == trial.stages[: index + 1]
    assert not {s.key for s in stages[index + 1 :]} & {s.key for s in trial.stages}
    for before, after in pairwise(stages):
        assert (after.parent, after.spec.removed_from) == (before.key, before.spec.removed_to)
        assert after.spec.first_step == before.spec.first_step + before.spec.steps
    assert stages[-1].spec.rate_to == 0


def test_fork_without_change_of_the_schedule_keeps_every_step(store):
    trial = origin(store)
    plan = fork_plan(trial, trial.stages[2], ((RATE, 0.01),), "mine")
    assert [s.spec for s in plan.trials[0].stages] == [s.spec for s in trial.stages]
    assert plan.job.name == "mine"


def test_saved_fork_is_a_job_with_a_name(stepwise, store):
    trial = origin(store)
    plan = fork_plan(trial, trial.stages[2], ((DELTA, 1),), "mine")
    save_fork(plan, store)
    assert named_plan(Path("mine"), (), store) == plan == saved_plan("mine", store)
    assert stepwise("plan", "mine", "--store", store.root).code == 0
    assert "tokens_per_stage: 2.0 -> 1.0" in stepwise("compare", "x", "mine", "--store", store.root).out
    assert "RUN004" in stepwise("extend", "mine", "--seeds", 1, "--store", store.root).err
    with pytest.raises(InputError, match="FRK001"):
        save_fork(fork_plan(trial, trial.stages[1], ((DELTA, 1),), "mine"), store)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["zz"], "FRK004"),
        ([""], "FRK004"),
        (["{2}", "--set", "model.layers=2"], "FRK006"),
        (["{2}", "--set", "training.learning_rate=-1"], "CFG008"),
        (["{2}", "--set", "nonsense"], "CLI001"),
        (["{2}", "--set", "schedule.tokens_per_stag=1"], 'did you mean "schedule.tokens_per_stage"?'),
        (["{2}", "--set", "schedule.tokens_per_stage=1", "--name", "x"], "FRK001"),
        (["{2}", "--name", "../x"], "CFG031"),
        (["{8}"], "FRK003"),
    ],
)
def test_bad_fork_is_refused(stepwise, store, words, code):
    keys = [stage.key for stage in origin(store).stages]
    finished = stepwise("fork", *(word.format(*keys) for word in words), "--store", store.root, "--dry-run")
    assert (finished.code, code in finished.err) == (2, True), finished.err


def test_compare_shows_the_fields_then_both_frontiers(stepwise, store):
    left = build_plan(make_job(seeds=[0]))
    right = build_plan(make_job(None, name="y", schedule=SCHEDULE | {"tokens_per_stage": 4}))
    for plan, match in ((left, 0.5), (right, 0.75)):
        for trial in plan.trials:
            commit(store, trial.stages, match)
    compared = comparison(left, right, store)
    assert "schedule.tokens_per_stage: [2, 4] -> 4.0" in compared.differences
    assert compared.best == (
        "best: tokens_per_stage=2, smoothing_lambda=4: area 0.500 (seed 0), tied with 3 more",
        None,
    )
    assert list(compared.exact_match) == [f"{n} of 8 removed" for n in (0, 2, 4, 6, 8)]
    save_job(left, store)
    save_job(right, store)
    lines = stepwise("compare", "x", "y", "--store", store.root).out.splitlines()
    assert "  schedule.smoothing_lambda: [4, inf] -> 4.0" in lines
    assert any(line.split() == ["exact", "match", "Δ", "2,", "λ", "4", "y", "difference"] for line in lines)


# What people see


def test_live_table_of_many_trials_fits_a_small_terminal(store):
    plan = build_plan(make_job(seeds=list(range(8))))
    commit(store, plan.trials[0].stages, 0.5)
    console = Console(width=200, height=24, record=True)
    console.print(live_table([TrialStatus(chain, None) for chain in replay_all(plan, store)], 21))
    lines = console.export_text().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert "stages" in lines[1]
    assert lines[-1].startswith("32 trials: 31 waiting, 1 done;") and lines[-1].endswith("12 not shown")
    assert not any("…" in line for line in lines)


def test_summary_of_a_search_counts_restarts(store):
    plan = build_plan(make_job({"space": {DELTA: [2, 4]}}))
    for trial in plan.trials:
        commit(store, trial.stages[:2], 0.5)
    commit(store, plan.trials[0].stages[2:3], 0.0, verdict="stuck")
    console = Console(width=80, record=True)
    console.print(summary_table(Findings.of(plan, store).trials))
    rows = [line.split() for line in console.export_text().splitlines() if line.startswith("Stepwise")]
    assert [row[-2:] for row in rows] == [["1", "good"], ["0", "good"]]


def test_report_of_a_search_names_the_winner_everywhere(stepwise: Callable, store, tmp_path):
    path = job_file(tmp_path, "space.schedule.tokens_per_stage = [4, 8]\nspace.schedule.smoothing_lambda = [1, 4]")
    plan = build_plan(load_job(path))
    for number, trial in enumerate(plan.trials):
        commit(store, trial.stages[:1], 0.5)
        commit(store, trial.stages[1:], 0.5 + 0.1 * number)
    finished = stepwise("report", path, "--store", store.root)
    assert "best: tokens_per_stage=8, smoothing_lambda=4: area" in finished.out
    assert (
        "Did it internalize? Not yet: nothing consolidated: 0.800 with all 8 CoT tokens removed; 0.95 asked"
        in finished.out
    )
    assert max(map(len, finished.out.splitlines()[2:-1])) <= 80
    folder = store.root / "jobs/x/report"
    assert "Best: tokens_per_stage=8, smoothing_lambda=4: area" in (folder / "report.html").read_text()
    assert (folder / "frontier.csv").read_text().splitlines()[0].endswith(f"{DELTA},{LAMBDA}")
