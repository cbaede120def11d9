"""MLflow as a stranger meets it: the same numbers as the report, a store that moved, variables of other tools."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import start
from commands import stepwise as in_a_process
from mlflow import MlflowClient

from orchestrator.config import load_job
from orchestrator.method.stage import StageMetrics
from orchestrator.store import StageStore, plan_for, save_job

JOB = """
name = "small"
[task]
digits = [2, 2]
[schedule]
type = "reference"
consolidation_stages = 1
[search.space]
"schedule.tokens_per_stage" = [4]
"""


def trained(folder: Path, root: Path) -> StageStore:
    """A job of which every stage is committed: with the exact match 0.9, 0.8 and so on."""
    (folder / "job.toml").write_text(JOB)
    store = StageStore(root)
    plan = plan_for(load_job(folder / "job.toml"), store, 8)
    save_job(plan, store)
    for stage in plan.trials[0].stages:
        spec = stage.spec
        measured = dict.fromkeys(
            ("validation_loss", "examples_per_second", "examples_per_second_batched", "train_seconds"), 1.0
        )
        metrics = StageMetrics(
            removed_tokens=spec.removed_to,
            total_tokens=spec.total_tokens,
            exact_match=(9 - stage.index) / 10,
            examples=100,
            generated_tokens=12.0 - spec.removed_to,
            evaluate_seconds=1.0,
            **measured,
        )
        attempt = store.begin(stage.key)
        (attempt / "model.safetensors").write_bytes(b"weights")
        store.commit(stage, attempt, "good", metrics)
    return store


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root}/mlflow.db", f"sqlite:///{root}/mlflow.db")


def trial_run(root: Path):
    mlflow = client(root)
    experiment = mlflow.get_experiment_by_name("stepwise/small")
    [run] = mlflow.search_runs([experiment.experiment_id], "tags.`stepwise.level` = 'trial'")
    return run


def test_area_is_the_same_in_the_search_and_in_mlflow(tmp_path: Path, stepwise: Callable) -> None:
    """The first stage removes tokens at once, so nothing was measured with the whole CoT."""
    trained(tmp_path, tmp_path / "s")
    tracked = stepwise("track", "small", "--store", tmp_path / "s")
    assert tracked.code == 0, tracked.err
    points = json.loads(stepwise("report", "small", "--store", tmp_path / "s", "--json").out)
    assert [point["removed_tokens"] for point in points] == [3, 7, 8, 8]
    area = trial_run(tmp_path / "s").data.metrics["score/auc"]
    assert area == pytest.approx((4 * (0.9 + 0.8) / 2 + (0.8 + 0.6) / 2) / 8)
    assert f"area {area:.3f}" in stepwise("report", "small", "--store", tmp_path / "s").out


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_store_that_lies_elsewhere_works_whole(tmp_path: Path, stepwise: Callable, how: str) -> None:
    old, new = tmp_path / "old", tmp_path / "a new place"
    trained(tmp_path, old)
    assert stepwise("track", "small", "--store", old).code == 0
    if how == "moved":
        old.rename(new)
    else:
        shutil.copytree(old, new)
    before = sorted(path for path in old.rglob("*") if path.is_file())
    shutil.rmtree(new / "jobs/small/report")
    tracked = in_a_process(
        "track", "small", "--store", new, cwd=tmp_path
    )  # MLflow remembers paths as long as one lives
    assert tracked.returncode == 0, tracked.stderr
    assert sorted(path for path in old.rglob("*") if path.is_file()) == before and (old.exists() == (how == "copied"))
    with sqlite3.connect(new / "mlflow.db") as database:
        assert not [line for line in database.iterdump() if f"{old}/" in line or str(Path.cwd()) in line]
    mlflow = client(new)
    [version] = mlflow.search_model_versions("name = 'stepwise-small'")
    assert Path(version.tags["stepwise.folder"]).joinpath("model.safetensors").is_file()
    assert Path(version.tags["stepwise.folder"]).is_relative_to(new)
    experiment = mlflow.get_experiment_by_name("stepwise/small")
    [job] = mlflow.search_runs([experiment.experiment_id], "tags.`stepwise.level` = 'job'")
    assert job.info.artifact_uri.startswith(f"{new.as_uri()}/")
    assert {"report.html", "job.toml"} <= {file.path for file in mlflow.list_artifacts(job.info.run_id)}


def test_variables_of_mlflow_lead_nothing_elsewhere(
    tmp_path: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    for name in ("TRACKING_URI", "REGISTRY_URI", "WORKSPACE_STORE_URI", "BACKEND_STORE_URI", "REGISTRY_STORE_URI"):
        monkeypatch.setenv(f"MLFLOW_{name}", elsewhere)
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "theirs")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    trained(tmp_path, tmp_path / "s")
    tracked = stepwise("track", "small", "--store", tmp_path / "s")
    assert tracked.code == 0, tracked.err
    assert "MLFLOW_TRACKING_URI is set and not used" in tracked.out
    assert not (tmp_path / "elsewhere.db").exists()
    assert client(tmp_path / "s").search_model_versions("name = 'stepwise-small'")


def test_variables_that_count_are_listed(stepwise: Callable) -> None:
    told = stepwise("--help").out
    for name in ("STEPWISE_STORE", "STEPWISE_MIRROR", "STEPWISE_WEBHOOK", "RAY_ADDRESS", "RAY_TMPDIR", "HTTPS_PROXY"):
        assert name in told
    assert "MLFLOW_TRACKING_URI" in told and "not used" in told


def test_two_commands_at_once_on_a_fresh_store_say_nothing_of_it(tmp_path: Path) -> None:
    trained(tmp_path, tmp_path / "s")
    both = [start("track", "small", "--store", tmp_path / "s", cwd=tmp_path) for _ in range(2)]
    for command in both:
        said, _ = command.communicate(timeout=200)
        assert command.returncode == 0 and "error" not in said, said
