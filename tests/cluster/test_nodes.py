"""Nodes that go and come under a running search, the head among them: it ends as if nothing had been."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from commands import manifests, weights
from loopback import PATIENCE_SECONDS, await_that, first_stages, loopback

from orchestrator.config import load_job
from orchestrator.store import StageStore, plan_for
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.timeout(60 * 60)

JOB = """
name = "three"
methods = ["stepwise"]
[task]
digits = [1, 2]
[model]
layers = 1
width = 32
heads = 2
dropout = 0.1
[schedule]
tokens_per_stage = 3
stage_steps = 1500
pretrain_steps = 100
consolidation_stages = 1
[evaluation]
speed_examples = 2
[search]
type = "grid"
[search.space]
training.learning_rate = [3e-3, 2e-3, 1e-3]
"""
TRIALS, STAGES = 3, 5
ONE_TRIAL, TWO_TRIALS = (f"search.space.training.learning_rate={rates}" for rates in ("[3e-3]", "[3e-3, 2e-3]"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "three.toml").write_text(JOB)
    return tmp_path


@cache
def undisturbed() -> dict[str, str]:
    """The weights of every stage of the job, made in this process without Ray."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "three.toml").write_text(JOB)
        job, store = load_job(folder / "three.toml"), StageStore(folder / "stepwise-store")
        data = prepare_data(job, store)
        for trial in plan_for(job, store, data.total_tokens).trials:
            list(walk(trial, StageRunner(Workplace(trial.job, data, store))))
        return weights(folder)


def test_search_ends_as_undisturbed_when_a_node_is_killed_and_another_added(folder: Path) -> None:
    with loopback(folder, workers=2) as cluster:
        assert cluster.there("submit", "three.toml").returncode == 0
        followed = cluster.follow("three")
        said = first_stages(followed.stdout, TRIALS)
        assert all(cluster.workers(f"127.0.0.{node}") for node in (1, 2, 3)), said
        with cluster.stopped("127.0.0.1", "127.0.0.3"):
            cluster.lose("127.0.0.2")
            cluster.join("127.0.0.4")
            await_that(lambda: cluster.workers("127.0.0.4"), "the trial of the lost node goes on on the new one")
        said += followed.communicate(timeout=PATIENCE_SECONDS)[0]
        assert followed.returncode == 0, said
    assert weights(folder) == undisturbed()


def test_trial_leaves_a_node_that_is_to_be_taken_away_and_goes_on_from_where_it_was(folder: Path) -> None:
    with loopback(folder) as cluster:
        assert cluster.there("submit", "three.toml", TWO_TRIALS).returncode == 0
        followed = cluster.follow("three")
        said = first_stages(followed.stdout, 2)
        (worker,) = cluster.workers("127.0.0.2")
        cluster.drain("127.0.0.2", seconds=600)
        worker.wait(PATIENCE_SECONDS)
        assert list(folder.glob("stepwise-store/stages/*/snapshot/state.json"))
        cluster.lose("127.0.0.2")
        said += followed.communicate(timeout=PATIENCE_SECONDS)[0]
        assert followed.returncode == 0, said
    assert len(weights(folder)) == 2 * STAGES
    assert weights(folder).items() <= undisturbed().items()


def test_search_goes_on_after_the_head_was_lost_and_the_cluster_started_again(folder: Path) -> None:
    with loopback(folder) as cluster:
        cluster.there("submit", "three.toml", ONE_TRIAL)
        followed = cluster.follow("three")
        said = first_stages(followed.stdout, 1)
        cluster.lose("127.0.0.1")
        said += followed.communicate(timeout=PATIENCE_SECONDS)[0]
        assert "CLU007" in said
        before = manifests(folder)
        assert before
        status = cluster.there("status", "three")
        while "three: training" in status.stdout:  # the worker of the other node goes on for a while
            status = cluster.there("status", "three")
        assert "the store says" in status.stdout
        assert "three: unfinished" in status.stdout
        cluster.end()

        cluster.start()
        again = cluster.there("submit", "three.toml", ONE_TRIAL)
        assert "is submitted" in again.stdout, again.stdout + again.stderr
        finished = cluster.there("logs", "-f", "three")
        assert finished.returncode == 0, finished.stdout + finished.stderr
    after = manifests(folder)
    assert {key: after[key] for key in before} == before
    assert len(weights(folder)) == STAGES
    assert weights(folder).items() <= undisturbed().items()
