"""Searches with real Ray: a grid that prunes, is run again, extended and forked; Optuna."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import TINY, manifests, stepwise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30 * 60)]

JOB = f"""
name = "{{name}}"
{TINY}
[schedule]
tokens_per_stage = 2
stage_steps = 40
pretrain_steps = 60
consolidation_stages = 2
[resources]
cpus_per_worker = 0.5
max_concurrent_trials = 2
[search]
{{search}}
"""
GRID = """
prune = true
[search.space]
training.learning_rate = [3e-3, 2e-3, 1e-6]
"""
OPTUNA = """
type = "optuna"
configurations = 2
[search.space]
training.learning_rate = { low = 1e-3, high = 1e-2, log = true }
schedule.tokens_per_stage = [2, 3]
"""


def committed(folder: Path) -> dict[str, str]:
    """The attempt that counts, by stage."""
    return {key: manifest["attempt"] for key, manifest in manifests(folder).items()}


def write_job(folder: Path, name: str, search: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(JOB.format(name=name, search=search))
    return path


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished grid search in it."""
    folder = tmp_path_factory.mktemp("grid")
    done = stepwise("run", write_job(folder, "grid", GRID), cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best: learning_rate=0.00" in done.stdout
    assert "stepwise-learning_rate1e-06-seed0  pruned: rate 1e-06 stayed behind" in done.stdout
    return folder


def test_grid_run_again_adopts_everything_and_leaves_the_pruned_trial(grid: Path) -> None:
    before = committed(grid)
    again = stepwise("run", "grid.toml", cwd=grid)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "starting Ray" not in again.stdout and "pruned" in again.stdout
    assert committed(grid) == before


def test_mlflow_has_settings_and_objective(grid: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{grid / 'stepwise-store' / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "stepwise/grid"]
    runs = client.search_runs([experiment.experiment_id])
    trials = {run.data.params["learning_rate"]: run for run in runs if run.data.tags["stepwise.level"] == "trial"}
    (job,) = [run for run in runs if run.data.tags["stepwise.level"] == "job"]
    assert trials.keys() == {"0.003", "0.002", "1e-06"}
    assert trials["1e-06"].data.tags["stepwise.verdict"] == "pruned" and trials["1e-06"].info.status == "KILLED"
    assert 0 <= job.data.metrics["search/objective"] <= 1
    assert job.data.tags["stepwise.best"].startswith("best: learning_rate=0.00")


def test_extended_search_keeps_every_stage_and_a_fork_shares_its_beginning(grid: Path) -> None:
    before = committed(grid)
    extended = stepwise("extend", "grid.toml", "--seeds", "1", cwd=grid)
    assert extended.returncode == 0, extended.stdout + extended.stderr
    after = committed(grid)
    assert before.items() < after.items()
    assert "of 2 seeds" in stepwise("report", "grid.toml", cwd=grid).stdout
    points = json.loads(stepwise("report", "grid", "--json", cwd=grid).stdout)
    key = next(p["stage_key"] for p in points if p["removed_tokens"] == 4)
    forked = stepwise("fork", key[:10], "--set", "training.learning_rate=1e-3", "--name", "forked", cwd=grid)
    assert forked.returncode == 0, forked.stdout + forked.stderr
    assert after.items() < committed(grid).items() and key in json.dumps(
        stepwise("report", "forked", "--json", cwd=grid).stdout
    )


def test_optuna_proposes_once_and_the_plan_knows_what_is_left(tmp_path: Path) -> None:
    job = write_job(tmp_path, "optuna", OPTUNA)
    first = stepwise("run", job, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "best: learning_rate=" in first.stdout
    before = committed(tmp_path)
    again = stepwise("run", job, cwd=tmp_path)
    assert again.returncode == 0 and "starting Ray" not in again.stdout
    assert committed(tmp_path) == before
    planned = json.loads(stepwise("plan", job, "search.configurations=3", "--json", cwd=tmp_path).stdout)
    assert (len(planned["trials"]), planned["to_propose"], planned["steps_left"]) == (2, 1, 0)
