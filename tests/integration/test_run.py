"""`stepwise run` with real Ray and real MLflow: the quickstart in seconds, interrupted, killed, on two workers."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from commands import TINY, kill_after_first_commit, manifests, processes_of, start, stepwise, weights

pytestmark = pytest.mark.timeout(30 * 60)

JOB = f"""
name = "small"
methods = {{methods}}
{TINY}
[schedule]
tokens_per_stage = 3
stage_steps = 60
pretrain_steps = 60
consolidation_stages = 1
[training]
learning_rate = 3e-3
[resources]
cpus_per_worker = 0.5
"""


def write_job(folder: Path, methods: list[str]) -> Path:
    path = folder / "small.toml"
    path.write_text(JOB.format(methods=json.dumps(methods)))
    return path


def frontier(job: Path, cwd: Path) -> list[dict]:
    return json.loads(stepwise("report", job, "--json", cwd=cwd).stdout)


def frontier_rows_in_mlflow(folder: Path) -> list[tuple]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'stepwise-store' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "stepwise/small"]
    return sorted(
        (run.info.run_name, metric.step, metric.value)
        for run in client.search_runs([experiment.experiment_id], "tags.`stepwise.level` = 'trial'")
        for metric in client.get_metric_history(run.info.run_id, "frontier/accuracy")
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small job ran to its end."""
    folder = tmp_path_factory.mktemp("finished")
    done = stepwise("run", write_job(folder, ["no_cot", "explicit_cot", "stepwise"]), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_run_prints_the_frontier_and_where_to_look(finished: Path) -> None:
    output = (finished / "output.txt").read_text()
    assert "stepwise-store/jobs/small/report/report.html" in output
    assert "stepwise ui --store stepwise-store" in output
    assert "stage 4 of 5" in output and "Stepwise" in output and "No CoT" in output


def test_run_commits_every_stage_with_its_checkpoint(finished: Path) -> None:
    plan = json.loads(stepwise("plan", "small.toml", "--json", cwd=finished).stdout)
    planned = {stage["key"] for trial in plan["trials"] for stage in trial["stages"]}
    assert planned == set(manifests(finished)) == set(weights(finished))
    assert plan["steps_left"] == 0


def test_run_trains_a_stage_that_trials_share_once(finished: Path) -> None:
    plan = json.loads(stepwise("plan", "small.toml", "--json", cwd=finished).stdout)
    shared = {stage["key"] for trial in plan["trials"] for stage in trial["stages"] if stage["shared"]}
    assert len(shared) == 1
    for folder in finished.glob("stepwise-store/stages/*"):
        assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_report_json_has_a_point_for_every_stage_of_every_trial(finished: Path) -> None:
    points = frontier(finished / "small.toml", finished)
    assert [p["removed_tokens"] for p in points if p["method"] == "stepwise"] == [0, 0, 3, 6, 6]
    assert {p["verdict"] for p in points} == {"good"}
    assert all(0 <= p["exact_match"] <= 1 and p["examples_per_second"] > 0 and p["speedup"] > 0 for p in points)
    (table,) = finished.glob("stepwise-store/jobs/small/report/frontier.csv")
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == len(points)


def test_run_again_adopts_everything_and_doubles_nothing(finished: Path) -> None:
    before, points = weights(finished), frontier_rows_in_mlflow(finished)
    attempts = sorted(finished.glob("stepwise-store/stages/*/*"))
    again = stepwise("run", "small.toml", cwd=finished)
    assert again.returncode == 0, again.stderr
    assert weights(finished) == before
    assert sorted(finished.glob("stepwise-store/stages/*/*")) == attempts
    assert frontier_rows_in_mlflow(finished) == points and len(points) == 5


def test_run_with_nothing_left_to_train_removes_what_one_killed_at_its_end_left(finished: Path) -> None:
    shared = finished / "stepwise-store/ray"
    (shared / "state-killed" / "tune").mkdir(parents=True)
    (shared / "state-killed.lock").touch()
    assert stepwise("run", "small.toml", cwd=finished).returncode == 0
    assert not list(shared.iterdir())


def test_killed_run_continues_to_the_same_frontier(finished: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, ["stepwise"])
    kill_after_first_commit(start("run", job, cwd=tmp_path), signal.SIGKILL)
    survived = manifests(tmp_path)
    assert survived
    assert stepwise("run", job, cwd=tmp_path).returncode == 0
    after, control = manifests(tmp_path), weights(finished)
    assert all(after[key] == manifest for key, manifest in survived.items())
    assert weights(tmp_path) == {key: control[key] for key in after}


@pytest.mark.slow
def test_interrupted_run_keeps_what_is_committed_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path, ["explicit_cot"])
    monkeypatch.setenv("STEPWISE_TEST", str(tmp_path))
    process = start("run", job, cwd=tmp_path)
    output = kill_after_first_commit(process, signal.SIGINT)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert manifests(tmp_path)
    monkeypatch.delenv("STEPWISE_TEST")
    assert [pid for pid in processes_of(tmp_path) if pid != os.getpid()] == []


@pytest.mark.slow
def test_run_with_a_trial_that_diverges_ends_partial(tmp_path: Path) -> None:
    job = write_job(tmp_path, ["stepwise"])
    wild = ["schedule.pretrain_steps=1", "training.learning_rate=1.0", "training.weight_decay=1e4"]
    done = stepwise("run", job, *wild, "training.max_grad_norm=1e30", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "diverged" in done.stdout and "report.html" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("shared_out", ["false", "true"])
def test_two_workers_train_the_same_job(finished: Path, tmp_path: Path, shared_out: str) -> None:
    job = write_job(tmp_path, ["stepwise"])
    done = stepwise("run", job, "resources.workers=2", f"resources.shard={shared_out}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    together = {p["stage_key"]: p for p in frontier(job, tmp_path)}
    alone = {p["stage_key"]: p for p in frontier(finished / "small.toml", finished)}
    for key, point in together.items():
        assert point["exact_match"] == pytest.approx(alone[key]["exact_match"], abs=0.15)
