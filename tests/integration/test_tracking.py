"""The store as MLflow shows it: real MLflow on SQLite, stages really committed, no training."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from builders import WEIGHTS, commit_stage, metrics_of

from orchestrator.config import Job
from orchestrator.errors import StepwiseError
from orchestrator.method.stage import PASSED, LossPoint, Verdict
from orchestrator.plan import Plan, PlannedStage, Trial, build_plan
from orchestrator.stability import Block
from orchestrator.store import StageStore
from orchestrator.tracking import BackgroundTracker, Tracker, experiment_name
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import advanced

ALL = ["no_cot", "explicit_cot", "stepwise"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module (making one takes seconds); every test has its own experiment."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


def make_plan(name: str, uri: str | None, **fields: Any) -> Plan:
    """8 removable tokens, 4 a stage: six stages that end with 0, 0, 4, 8, 8, 8 removed."""
    schedule = {"tokens_per_stage": 4.0, "stage_steps": 50, "pretrain_steps": 50, "consolidation_stages": 2}
    job = {"name": name, "methods": ["stepwise"], "task": {"digits": [2, 2]}, "schedule": schedule}
    return build_plan(Job.model_validate({**job, "tracking": {"uri": uri}, **fields}))


def loss_steps(stage: PlannedStage) -> range:
    return range(stage.spec.first_step + 5, stage.spec.first_step + stage.spec.steps, 5)


UNMEASURED = {
    "exact_match": 0.0,
    "examples": 0,
    "validation_loss": 1e9,
    "generated_tokens": 0.0,
    "examples_per_second": 0.0,
    "examples_per_second_batched": 0.0,
    "evaluate_seconds": 0.0,
}
"""Of an attempt that failed: nothing decodes its model."""


def last_block(stage: PlannedStage, exact_match: float) -> Block:
    spec = stage.spec
    losses = dict.fromkeys(("probe_loss", "train_loss", "train_loss_max", "gradient_norm", "gradient_norm_max"), 0.1)
    place = {"step": spec.steps, "removed_tokens": spec.removed_to}
    return Block(**place, **losses, probe_exact_match=exact_match, non_finite=0, update_ratio=1e-3)


def commit(
    store: StageStore,
    stage: PlannedStage,
    exact_match: float,
    verdict: Verdict = "good",
    rate: float = 10.0,
    **measured: Any,
) -> None:
    """Of a failed attempt ``exact_match`` is what its last spot check found."""
    fields = {
        "generated_tokens": 12.0 - stage.spec.removed_to,
        "examples_per_second": rate,
        "examples_per_second_batched": 10 * rate,
        "train_loss": tuple(LossPoint(step=step, loss=1 / step) for step in loss_steps(stage)),
        "train_seconds": 3.0,
        "blocks": (last_block(stage, exact_match),),
        **measured,
    }
    metrics = metrics_of(stage, exact_match, **fields).model_copy(update={} if verdict in PASSED else UNMEASURED)
    commit_stage(store, stage, metrics, verdict, files=WEIGHTS)


def commit_all(store: StageStore, trial: Trial, rate: float = 10.0) -> None:
    for stage in trial.stages:
        commit(store, stage, (9 - stage.index) / 10, rate=rate)


class Recorded:
    """What a reader of MLflow finds."""

    def __init__(self, plan: Plan, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        self.experiment = self.client.get_experiment_by_name(experiment_name(plan.job))

    def runs(self, level: str = "trial") -> dict[str, Any]:
        found = self.client.search_runs([self.experiment.experiment_id], f"tags.`stepwise.level` = '{level}'")
        assert len({run.info.run_name for run in found}) == len(found), "two runs of one trial"
        return {run.info.run_name: run for run in found}

    def values(self, run: Any, key: str) -> list[tuple[int, float]]:
        """(step, value) of every stored row, duplicates included."""
        return sorted((m.step, m.value) for m in self.client.get_metric_history(run.info.run_id, key))

    def rows(self) -> Counter[tuple[str, str]]:
        runs = self.runs().values()
        return Counter({(r.info.run_id, key): len(self.values(r, key)) for r in runs for key in r.data.metrics})

    def artifacts(self, run: Any) -> set[str]:
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}


def test_finished_job_is_recorded_once_with_removed_tokens_as_step(store: StageStore, database: str) -> None:
    plan = make_plan("finished", database, methods=ALL)
    for trial in plan.trials:
        commit_all(store, trial, rate=40.0 if trial.method == "no_cot" else 10.0)
    Tracker(plan, store).sync()

    recorded = Recorded(plan, database)
    runs = recorded.runs()
    assert {name: run.info.status for name, run in runs.items()} == {trial.name: "FINISHED" for trial in plan.trials}
    stepwise, no_cot, explicit = (runs[f"{method}-seed0"] for method in ("stepwise", "no_cot", "explicit_cot"))

    accuracy = recorded.values(stepwise, "frontier/accuracy")
    assert accuracy == [(0, 0.8), (4, 0.7), (8, 0.4)]
    assert recorded.values(stepwise, "frontier/internalized_tokens") == [(0, 0), (4, 4), (8, 8)]
    assert recorded.values(stepwise, "frontier/speedup") == [(0, 0.25), (4, 0.25), (8, 1.0)]
    assert [step for step, _ in recorded.values(no_cot, "frontier/accuracy")] == [8]
    assert [step for step, _ in recorded.values(explicit, "frontier/accuracy")] == [0]
    stages = plan.trials[2].stages
    ends = [stage.spec.first_step + stage.spec.steps for stage in stages]
    assert [step for step, _ in recorded.values(stepwise, "stage/exact_match")] == ends
    losses = recorded.values(stepwise, "train/loss")
    assert losses == [(step, 1 / step) for stage in stages for step in loss_steps(stage)]
    assert recorded.values(stepwise, "score/exact_match_all_removed") == [(0, 0.4)]
    assert recorded.values(stepwise, "score/auc") == [(0, pytest.approx((0.75 + 0.55) / 2))]

    assert stepwise.data.params["tokens_per_stage"] == "4"
    assert "tokens_per_stage" not in no_cot.data.params
    assert recorded.artifacts(stepwise) == {"job.json"}
    described = Path(recorded.client.download_artifacts(stepwise.info.run_id, "job.json")).read_text()
    assert Job.model_validate_json(described) == plan.trials[2].job
    assert "mlflow.sharedViewState.frontier" in recorded.experiment.tags


def test_sync_by_a_fresh_process_adds_nothing(store: StageStore, database: str) -> None:
    plan = make_plan("twice", database, methods=ALL)
    for trial in plan.trials:
        commit_all(store, trial)
    Tracker(plan, store).sync()
    recorded = Recorded(plan, database)
    before, rows = recorded.runs(), recorded.rows()

    tracker = Tracker(plan, store)
    tracker.sync()
    tracker.sync()

    after = recorded.runs()
    assert recorded.rows() == rows
    assert {name: run.info.run_id for name, run in after.items()} == {n: r.info.run_id for n, r in before.items()}
    assert {n: r.info.end_time for n, r in after.items()} == {n: r.info.end_time for n, r in before.items()}


def test_trial_left_by_a_dead_driver_goes_on_in_its_run(store: StageStore, database: str) -> None:
    plan = make_plan("interrupted", database)
    trial = plan.trials[0]
    for stage in trial.stages[:5]:
        commit(store, stage, 0.9)
    Tracker(plan, store).sync()
    recorded = Recorded(plan, database)
    half = recorded.runs()[trial.name]
    assert half.info.status == "RUNNING"
    assert [step for step, _ in recorded.values(half, "frontier/accuracy")] == [0, 4], "8 is not settled yet"

    commit(store, trial.stages[5], 0.95)
    Tracker(plan, store).sync()

    whole = recorded.runs()[trial.name]
    assert (whole.info.run_id, whole.info.status) == (half.info.run_id, "FINISHED")
    assert recorded.values(whole, "frontier/accuracy") == [(0, 0.9), (4, 0.9), (8, 0.95)]


def test_trial_stopped_on_purpose_is_killed_and_revived(store: StageStore, database: str) -> None:
    plan = make_plan("stopped", database)
    trial = plan.trials[0]
    commit(store, trial.stages[0], 0.9)
    tracker = Tracker(plan, store)
    tracker.sync()
    tracker.end()
    recorded = Recorded(plan, database)
    assert recorded.runs()[trial.name].info.status == "KILLED"

    Tracker(plan, store).sync()

    assert recorded.runs()[trial.name].info.status == "RUNNING"


def test_diverged_trial_is_failed_and_keeps_its_good_points(store: StageStore, database: str) -> None:
    plan = make_plan("diverged", database, stability={"restarts": False})
    trial = plan.trials[0]
    for stage in trial.stages[:4]:
        commit(store, stage, 0.9)
    commit(store, trial.stages[4], 0.0, verdict="diverged")
    Tracker(plan, store).sync()

    recorded = Recorded(plan, database)
    run = recorded.runs()[trial.name]
    assert run.info.status == "FAILED"
    assert run.data.tags["stepwise.verdict"] == "diverged"
    assert recorded.values(run, "frontier/accuracy") == [(0, 0.9), (4, 0.9), (8, 0.9)]
    assert "score/auc" not in run.data.metrics


def test_stage_trained_anew_sets_the_old_run_aside(store: StageStore, database: str) -> None:
    plan = make_plan("anew", database)
    trial = plan.trials[0]
    for stage in trial.stages:
        commit(store, stage, 0.9)
    Tracker(plan, store).sync()
    recorded = Recorded(plan, database)
    old = recorded.runs()[trial.name]

    store.forget(trial.stages[2].key)
    commit(store, trial.stages[2], 0.7)
    Tracker(plan, store).sync()

    new = recorded.runs()[trial.name]
    assert new.info.run_id != old.info.run_id
    assert recorded.values(new, "frontier/accuracy") == [(0, 0.9), (4, 0.7), (8, 0.9)]
    assert [run.info.run_id for run in recorded.runs("superseded").values()] == [old.info.run_id]


def commit_next(store: StageStore, chain: Chain, exact_match: float, verdict: Verdict = "good") -> Chain:
    commit(store, chain.next, exact_match, verdict)
    return advanced(chain, store)


def test_restarts_are_tags_and_a_score(store: StageStore, database: str) -> None:
    plan = make_plan("restarted", database)
    chain = Chain.begin(plan.trials[0])
    while chain.next:
        stuck = chain.next.index == 3 and not chain.failures
        chain = commit_next(store, chain, 0.9, "stuck" if stuck else "good")
        Tracker(plan, store).sync()

    run = Recorded(plan, database).runs()[plan.trials[0].name]
    assert run.info.status == "FINISHED"
    assert run.data.tags["stepwise.restarts"] == "1"
    assert run.data.tags["stepwise.restart.1"].endswith("restart 1 from stage 3: another seed")
    assert run.data.metrics["score/restarts"] == 1
    assert run.data.tags["stepwise.lineage"].split() == [tried.stage.key[:8] for tried in chain.standing]


def test_attempt_thrown_away_is_a_run_below_its_trials(store: StageStore, database: str) -> None:
    plan = make_plan("thrown", database)
    chain = Chain.begin(plan.trials[0])
    while chain.next:
        stuck = chain.next.index == 3 and len(chain.failures) < 2
        chain = commit_next(store, chain, 0.1 if stuck else 0.9, "stuck" if stuck else "good")
        Tracker(plan, store).sync()

    recorded = Recorded(plan, database)
    trial, attempts = recorded.runs()["stepwise-seed0"], recorded.runs("attempt")
    assert sorted(attempts) == ["stepwise-seed0-stage3-attempt0", "stepwise-seed0-stage3-attempt1"]
    assert {run.info.status for run in attempts.values()} == {"FAILED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in attempts.values()} == {trial.info.run_id}
    first, failed = attempts["stepwise-seed0-stage3-attempt0"], chain.failures[0].stage
    assert recorded.values(first, "train/loss") == [(step, 1 / step) for step in loss_steps(failed)]
    assert recorded.values(first, "attempt/spot_check") == [(failed.spec.first_step + 50, 0.1)]
    assert "stage/exact_match" not in first.data.metrics, "nobody measured it"
    assert first.data.params["seed"] == str(failed.spec.seed)
    assert first.data.tags["stepwise.answer"] == "restart 1 from stage 3: another seed"
    assert recorded.values(trial, "frontier/accuracy") == [(0, 0.9), (4, 0.9), (8, 0.9)]


def test_loss_of_the_attempt_that_a_trial_gave_up_at_lies_over_the_trials(store: StageStore, database: str) -> None:
    plan = make_plan("over-each-other", database, stability={"restarts": False})
    stages = plan.trials[0].stages
    for stage in stages[:3]:
        commit(store, stage, 0.9, steps_taken=48)  # as the adaptive schedule does
    commit(store, stages[3], 0.1, "stuck")
    Tracker(plan, store).sync()

    recorded = Recorded(plan, database)
    (trial,), (attempt,) = recorded.runs().values(), recorded.runs("attempt").values()
    losses = recorded.values(attempt, "train/loss")
    assert [step for step, _ in losses] == [3 * 48 + step for step in range(5, 50, 5)]
    assert losses == recorded.values(trial, "train/loss")[-len(losses) :]
    assert [step for step, _ in recorded.values(trial, "stage/exact_match")] == [48, 96, 144], "of what passed"
    assert recorded.values(attempt, "attempt/spot_check") == [(3 * 48 + 50, 0.1)]


@pytest.mark.parametrize("measured", [{}, {"blocks": ()}], ids=["with blocks", "without"])
def test_attempt_made_anew_is_told_once(store: StageStore, database: str, measured: dict[str, Any]) -> None:
    plan = make_plan(f"attempt-anew-{len(measured)}", database)
    stages = plan.trials[0].stages
    for stage in stages[:3]:
        commit(store, stage, 0.9)
    commit(store, stages[3], 0.1, "stuck", **measured)
    Tracker(plan, store).sync()
    store.forget(stages[3].key)
    commit(store, stages[3], 0.1, "stuck", **measured)
    Tracker(plan, store).sync()

    recorded = Recorded(plan, database)
    (attempt,), (aside,) = recorded.runs("attempt").values(), recorded.runs("superseded").values()
    assert attempt.info.run_id != aside.info.run_id
    losses = [(step, 1 / step) for step in loss_steps(stages[3])]
    assert recorded.values(attempt, "train/loss") == recorded.values(aside, "train/loss") == losses


def test_run_whose_process_died_before_its_params_gets_them(store: StageStore, database: str) -> None:
    plan = make_plan("params", database)
    (trial,) = plan.trials
    commit(store, trial.stages[0], 0.9)
    Tracker(plan, store).sync()
    recorded = Recorded(plan, database)
    whole = recorded.runs()[trial.name]
    recorded.client.delete_run(whole.info.run_id)
    tags = {key: value for key, value in whole.data.tags.items() if key.startswith("stepwise.")}
    recorded.client.create_run(recorded.experiment.experiment_id, tags=tags, run_name=trial.name)

    Tracker(plan, store).sync()

    assert recorded.runs()[trial.name].data.params == whole.data.params


def test_trial_that_went_back_over_a_stage_gets_a_run_of_what_stands(store: StageStore, database: str) -> None:
    plan = make_plan("rewound", database, stability={"max_compute": 100})
    chain, tracker = Chain.begin(plan.trials[0]), Tracker(plan, store)
    accuracies = iter(range(100))
    while chain.next:
        stuck = chain.next.index == 3 and len(chain.failures) < 4
        chain = commit_next(store, chain, next(accuracies) / 100, "stuck" if stuck else "good")
        tracker.sync()

    recorded = Recorded(plan, database)
    run = recorded.runs()[plan.trials[0].name]
    ends = [tried.manifest.metrics.exact_match for tried in chain.standing]
    assert [value for _, value in recorded.values(run, "stage/exact_match")] == ends
    assert len(recorded.runs("superseded")) == 1
    attempts = recorded.runs("attempt").values()
    assert len(attempts) == len(chain.failures)
    assert {attempt.data.tags["mlflow.parentRunId"] for attempt in attempts} == {run.info.run_id}


def test_speedup_waits_for_no_cot_and_is_one_where_as_many_tokens_are_written(store: StageStore, database: str) -> None:
    plan = make_plan("speedup", database, methods=["no_cot", "stepwise"])
    no_cot, stepwise = plan.trials
    commit_all(store, stepwise, rate=10.0)
    commit(store, no_cot.stages[0], 0.1, rate=40.0)
    tracker = Tracker(plan, store)
    tracker.sync()
    recorded = Recorded(plan, database)
    assert "frontier/speedup" not in recorded.runs()[stepwise.name].data.metrics

    for stage in no_cot.stages[1:]:
        commit(store, stage, 0.1, rate=40.0)
    tracker.sync()

    assert recorded.values(recorded.runs()[stepwise.name], "frontier/speedup") == [(0, 0.25), (4, 0.25), (8, 1.0)]


def test_finish_records_the_envelope_and_the_report(store: StageStore, database: str, tmp_path: Path) -> None:
    plan = make_plan("report", database, methods=ALL, resources={"gpus_per_worker": 0.5})
    for trial in plan.trials:
        commit_all(store, trial)
    (tmp_path / "frontier.csv").write_text("removed_tokens\n")
    (tmp_path / "report.html").write_text("<p>frontier</p>")
    for tracker in (Tracker(plan, store), Tracker(plan, store)):
        tracker.sync()
        tracker.finish(tmp_path)

    recorded = Recorded(plan, database)
    run = recorded.runs("job")["report"]
    assert recorded.values(run, "frontier/accuracy") == [(0, 0.9), (4, 0.7), (8, 0.9)]
    steps, unique = sum(trial.steps for trial in plan.trials), plan.unique_stages.values()
    assert recorded.values(run, "cost/steps") == [(0, sum(stage.spec.steps for stage in unique))]
    assert recorded.values(run, "cost/steps_saved_by_sharing") == [(0, steps - sum(s.spec.steps for s in unique))]
    assert recorded.values(run, "cost/steps_lost_to_restarts") == [(0, 0)]
    assert recorded.values(run, "cost/gpu_hours") == [(0, pytest.approx(4.0 * len(unique) * 0.5 / 3600))]
    assert recorded.artifacts(run) == {"frontier.csv", "job.json", "job.toml", "report.html"}
    assert run.info.status == "FINISHED"
    note = recorded.client.get_experiment(recorded.experiment.experiment_id).tags["mlflow.note.content"]
    assert f"runs/{run.info.run_id}/artifacts/report.html" in note and "stepwise run job.toml" in note


def test_job_that_ended_early_and_went_on_is_told_once(store: StageStore, database: str, tmp_path: Path) -> None:
    """Its own run is set aside, whole, and written anew: every point of what counts is there once."""
    plan = make_plan("went-on", database)
    stages = plan.trials[0].stages
    for part in (stages[:5], stages[5:]):
        for stage in part:
            commit(store, stage, 0.9)
        tracker = Tracker(plan, store)  # another command
        tracker.sync()
        tracker.finish(tmp_path)
        tracker.end()

    recorded = Recorded(plan, database)
    (job,), (aside,) = recorded.runs("job").values(), recorded.runs("superseded").values()
    for run in (*recorded.runs().values(), job):
        for key in run.data.metrics:
            steps = [step for step, _ in recorded.values(run, key)]
            assert len(steps) == len(set(steps)), key
    twice = sum(len(recorded.values(aside, key)) for key in aside.data.metrics)
    assert twice == 14  # three metrics at three removed counts, and five of cost
    assert (job.info.status, aside.info.status) == ("FINISHED", "KILLED")


def test_experiment_that_somebody_deleted_is_restored(store: StageStore, database: str) -> None:
    plan = make_plan("deleted", database)
    (trial,) = plan.trials
    tracker = Tracker(plan, store)
    for stage in trial.stages[:3]:
        commit(store, stage, 0.9)
    tracker.sync()
    before = Recorded(plan, database)
    before.client.delete_experiment(before.experiment.experiment_id)
    for stage in trial.stages[3:]:
        commit(store, stage, 0.9)

    with pytest.raises(StepwiseError, match="MLF001"):
        tracker.sync()
    tracker.sync()  # as the driver does a little later

    recorded = Recorded(plan, database)
    assert recorded.experiment.experiment_id == before.experiment.experiment_id
    assert recorded.experiment.lifecycle_stage == "active"
    run = recorded.runs()[trial.name]
    assert run.info.status == "FINISHED"
    assert recorded.values(run, "frontier/accuracy") == [(0, 0.9), (4, 0.9), (8, 0.9)]


def test_look_whether_mlflow_can_be_written_leaves_what_a_run_makes(store: StageStore, database: str) -> None:
    from mlflow import MlflowClient

    plan = make_plan("looked-at", database)
    for _ in range(2):
        Tracker(plan, store).check_writable()
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("stepwise/looked-at")
    looked = dict(experiment.tags)
    assert client.search_runs([experiment.experiment_id]) == []
    commit_all(store, plan.trials[0])
    Tracker(plan, store).sync()
    assert client.get_experiment(experiment.experiment_id).tags == looked
    with pytest.raises(StepwiseError, match="MLF001"):
        Tracker(make_plan("looked-at", "http://127.0.0.1:9"), store).check_writable()


def test_models_of_the_frontier_are_logged_once_and_the_winners_have_aliases(store: StageStore, database: str) -> None:
    plan = make_plan("models", database, methods=ALL)
    for trial in plan.trials:
        commit_all(store, trial, rate=40.0 if trial.method == "no_cot" else 10.0)
    (store.root / "report").mkdir()
    for tracker in (Tracker(plan, store), Tracker(plan, store)):
        tracker.sync()
        tracker.finish(store.root / "report")

    recorded = Recorded(plan, database)
    client = recorded.client
    models = {model.name: model for model in client.search_logged_models([recorded.experiment.experiment_id])}
    assert {name for name in models if name.startswith("stepwise")} >= {
        "stepwise-seed0-stage2-k004",
        "stepwise-seed0-stage5-k008",
    }
    last = models["stepwise-seed0-stage5-k008"]
    assert (Path(last.tags["stepwise.folder"]) / "model.safetensors").read_bytes() == b"weights"
    assert last.tags["stepwise.previous_model"] == models["stepwise-seed0-stage2-k004"].model_id
    assert {(m.key, m.value) for m in last.metrics} >= {("frontier/accuracy", 0.4), ("frontier/generated_tokens", 4.0)}
    outputs = client.get_run(recorded.runs()["stepwise-seed0"].info.run_id).outputs.model_outputs
    assert sorted(output.step for output in outputs) == [0, 4, 8], "each once, though recorded by two processes"
    implicit = client.get_model_version_by_alias("stepwise-models", "best-implicit")
    assert implicit.tags["exact_match"] == "0.6" and implicit.tags["removed_tokens"] == "8"
    fast = client.get_model_version_by_alias("stepwise-models", "best-at-2x-speed")
    assert fast.version == implicit.version
    assert len(client.search_model_versions("name = 'stepwise-models'")) == 1


def test_baselines_are_flat_lines(store: StageStore, database: str) -> None:
    plan = make_plan("flat", database, methods=ALL)
    for trial in plan.trials:
        commit_all(store, trial)
    Tracker(plan, store).sync()
    recorded = Recorded(plan, database)
    for name in ("no_cot-seed0", "explicit_cot-seed0"):
        assert recorded.values(recorded.runs()[name], "baseline/accuracy") == [(0, 0.4), (8, 0.4)]


@pytest.mark.parametrize(("stages", "verdict", "status"), [(4, "diverged", "FAILED"), (4, None, "KILLED")])
def test_job_of_a_trial_that_did_not_end_well_says_so(
    store: StageStore, database: str, stages: int, verdict: Verdict | None, status: str
) -> None:
    plan = make_plan(f"ends-{status.lower()}", database, stability={"restarts": False})
    for stage in plan.trials[0].stages[:stages]:
        commit(store, stage, 0.9)
    if verdict:
        commit(store, plan.trials[0].stages[stages], 0.0, verdict=verdict)
    (store.root / "report").mkdir()
    tracker = Tracker(plan, store)
    tracker.sync()
    tracker.finish(store.root / "report")
    assert Recorded(plan, database).runs("job")[plan.job.name].info.status == status


def test_background_delivers_by_default_into_the_store(store: StageStore, tmp_path: Path) -> None:
    plan = make_plan("background", None)
    tracker = BackgroundTracker(Tracker(plan, store), pytest.fail)
    tracker.start()
    for stage in plan.trials[0].stages:
        commit(store, stage, 0.9)
        tracker.notify()
    report = tmp_path / "report"
    report.mkdir()
    (report / "frontier.png").write_bytes(b"picture")
    tracker.finish(report)
    assert tracker.close(deadline_seconds=60)

    recorded = Recorded(plan, f"sqlite:///{store.root / 'mlflow.db'}")
    assert recorded.runs()["stepwise-seed0"].info.status == "FINISHED"
    job = recorded.runs("job")["background"]
    assert recorded.artifacts(job) == {"frontier.png", "job.json", "job.toml"}
    assert job.info.artifact_uri.startswith(store.root.as_uri())


def test_dead_server_neither_blocks_nor_fails_the_driver(store: StageStore) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        plan = make_plan("dead", f"http://127.0.0.1:{closed.getsockname()[1]}")
        commit_all(store, plan.trials[0])
        said: list[str] = []
        heard = Event()
        tracker = BackgroundTracker(Tracker(plan, store), lambda line: (said.append(line), heard.set()))

        begun = time.monotonic()
        tracker.start()
        for _ in range(100):
            tracker.notify()
        assert time.monotonic() - begun < 5
        assert heard.wait(200)
        begun = time.monotonic()
        assert not tracker.close(deadline_seconds=1)
        assert time.monotonic() - begun < 10

    assert len(said) == 1
    assert "training goes on" in said[0]
    assert "\n" not in said[0]


def test_import_is_light() -> None:
    code = "import sys, orchestrator.tracking; print({'mlflow', 'torch', 'ray'} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
