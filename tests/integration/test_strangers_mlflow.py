"""MLflow as a stranger meets it: the same numbers as the report, a store that moved, variables of other tools."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
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
