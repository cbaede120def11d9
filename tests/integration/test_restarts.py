"""`stepwise run` with real Ray, where stages diverge for certain: restarts, the ladder, and what is left of it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from commands import TINY, kill_after_first_commit, manifests, start, stepwise, weights

pytestmark = pytest.mark.timeout(30 * 60)

JOB = f"""
name = "wild"
{TINY}
[schedule]
tokens_per_stage = 3
stage_steps = 90
pretrain_steps = 1
[training]
learning_rate = 1e-3
max_grad_norm = 1e30
reset_optimizer = false
weight_decay = {{weight_decay}}
[stability]
max_compute = 20
"""
SAVED, LOST = 3000, 1e7
"""AdamW multiplies weights by 1 - rate x decay: beyond -1 they explode. The ladder halves the rate, at most twice."""


def write_job(folder: Path, weight_decay: float) -> Path:
    path = folder / "wild.toml"
    path.write_text(JOB.format(weight_decay=weight_decay))
    return path


def verdicts(folder: Path) -> list[str]:
    return [m["verdict"] for m in sorted(manifests(folder).values(), key=lambda m: m["committed_at"])]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a trial ended well after some restarts."""
    folder = tmp_path_factory.mktemp("saved")
    done = stepwise("run", write_job(folder, SAVED), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_restarts_save_a_trial_and_each_says_why(saved: Path) -> None:
    assert verdicts(saved)[:5] == ["good", "diverged", "diverged", "diverged", "good"]
    lines = [line for line in (saved / "output.txt").read_text().splitlines() if "diverged:" in line]
    assert len(lines) == verdicts(saved).count("diverged")
    assert lines[0].startswith("stepwise-seed0  stage 1 of 4  diverged: a loss or gradient is not finite in block")
    assert lines[0].endswith("; restart 1 from stage 1: another seed")
    assert lines[2].endswith("a quarter of the tokens per stage, half the rate, twice the steps")
    points = json.loads(stepwise("report", "wild.toml", "--json", cwd=saved).stdout)
    assert [point["verdict"] for point in points] == ["good"] * 4
    assert points[-1]["restarts"] == len(lines)


def test_restarts_are_in_the_report_and_in_mlflow(saved: Path) -> None:
    from mlflow import MlflowClient

    html = (saved / "stepwise-store/jobs/wild/report/report.html").read_text()
    assert "<h2>Restarts</h2>" in html and "restart 1 from stage 1: another seed" in html
    client = MlflowClient(f"sqlite:///{saved / 'stepwise-store' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "stepwise/wild"]
    (run,) = client.search_runs([experiment.experiment_id], "tags.`stepwise.level` = 'trial'")
    assert "restart 1 from stage 1: another seed" in run.data.tags["stepwise.restart.1"]
    attempts = client.search_runs([experiment.experiment_id], "tags.`stepwise.level` = 'attempt'")
    assert len(attempts) == verdicts(saved).count("diverged")
    assert {attempt.data.tags["mlflow.parentRunId"] for attempt in attempts} == {run.info.run_id}


@pytest.mark.slow
def test_killed_run_decides_the_same_again(saved: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, SAVED)
    kill_after_first_commit(start("run", job, cwd=tmp_path), signal.SIGKILL)
    assert stepwise("run", job, cwd=tmp_path).returncode == 0
    assert weights(tmp_path) == weights(saved)
    assert manifests(tmp_path).keys() == manifests(saved).keys()


@pytest.mark.slow
def test_hopeless_trial_climbs_the_ladder_and_ends_partial_with_its_frontier(tmp_path: Path) -> None:
    done = stepwise("run", write_job(tmp_path, LOST), cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "stepwise-seed0 gave up: " in done.stdout
    assert "(Δ x 0.25, rate x 0.5, steps x 2): diverged by A1" in done.stdout
    assert "report.html" in done.stdout
    points = json.loads(stepwise("report", "wild.toml", "--json", cwd=tmp_path).stdout)
    assert [point["verdict"] for point in points] == ["good", "diverged"]
