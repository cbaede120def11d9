"""The paper's jobs: the published settings, and the first 20 steps of each on its real format with a stand-in model."""

from __future__ import annotations

import json
import re
from math import inf
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Job, load_job
from orchestrator.plan import Trial, build_plan
from orchestrator.store import StageStore
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = (4, 5, 7, 9, 11)
GSM8K = {
    "gsm8k_gpt2": (1, 5e-5, "gpt2"),
    "gsm8k_gpt2_medium": (1, 5e-5, "gpt2-medium"),
    "gsm8k_phi3": (8, 1e-5, "microsoft/Phi-3-mini-4k-instruct"),
    "gsm8k_mistral": (8, 1e-5, "mistralai/Mistral-7B-v0.1"),
}
JOBS = [*(f"mult_{k}x{k}" for k in DIGITS), *GSM8K]


@pytest.fixture
def paper(repository: Path) -> Path:
    return repository / "jobs" / "paper"


@pytest.fixture
def files(gsm8k: Path, gsm8k_lines: list[str]) -> list[str]:
    """Overrides that name a training set of nine batches in GSM8K's format."""
    (gsm8k / "train.txt").write_text("\n".join(gsm8k_lines * 5))
    return [f"task.train={gsm8k}/train.txt", f"task.validation={gsm8k}/valid.txt"]


def planned(job: Job, total_tokens: int | None = None) -> Trial:
    (trial,) = build_plan(job, total_tokens).trials
    return trial


@pytest.mark.parametrize("k", DIGITS)
def test_multiplication_has_the_published_settings(paper: Path, k: int) -> None:
    job = load_job(paper / f"mult_{k}x{k}.toml")
    schedule, training = job.schedule, job.training
    assert (job.task.digits, job.task.train_examples, job.model.name, job.seeds) == ((k, k), None, "gpt2", (3456,))
    assert (schedule.tokens_per_stage, schedule.stage_epochs, schedule.smoothing_lambda) == (8, 1, 4)
    assert (schedule.removal_side, schedule.remove_all_beyond, schedule.pretrain_epochs) == ("left", None, None)
    assert (training.learning_rate, training.batch_size, training.max_grad_norm) == (5e-5, 32, 1)
    assert (training.reset_optimizer, training.warmup_steps, training.max_train_tokens) == (True, 0, None)
    trial = planned(job)
    first_without = next(
        s.spec.first_step + s.spec.steps for s in trial.stages if s.spec.removed_to == 3 * k * k + k - 5
    )
    epochs = {4: 5, 5: 9, 7: 18, 9: 30, 11: 46}[k]
    assert epochs - 1 < first_without / 25_250 < epochs + 1.2


@pytest.mark.parametrize("name", GSM8K)
def test_gsm8k_has_the_published_settings(paper: Path, files: list[str], name: str) -> None:
    job = load_job(paper / f"{name}.toml", files)
    delta, rate, model = GSM8K[name]
    assert (job.schedule.tokens_per_stage, job.training.learning_rate, job.model.name) == (delta, rate, model)
    assert (job.schedule.remove_all_beyond, job.training.max_train_tokens, job.training.batch_size) == (39, 150, 32)
    assert (job.schedule.smoothing_lambda, job.schedule.removal_side, job.training.reset_optimizer) == (4, "left", True)
    assert planned(job).steps > 0


@pytest.mark.parametrize("name", JOBS)
def test_header_says_what_to_expect_and_that_it_was_not_run(paper: Path, name: str) -> None:
    text = (paper / f"{name}.toml").read_text()
    header = text.split("version = 1")[0]
    assert all(word in header for word in ("Hardware: ", "Expected: ", "Source: ", "Tolerance: ", "Not finished"))


def test_gsm8k_without_its_data_says_where_to_look(paper, stepwise, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished = stepwise("plan", paper / "gsm8k_gpt2.toml")
    assert finished.code == 2
    assert "DAT001" in finished.err and "data/gsm8k/train.txt not found" in finished.err


def assert_first_20_steps_run(file: Path, overrides: list[str], stand_in: Path, root: Path) -> None:
    small = [f"model.name={stand_in}", "resources.gpus_per_worker=0", "stability.probe_examples=8", "max_steps=20"]
    small += ["evaluation.examples=4", "evaluation.speed_examples=1", "evaluation.speed_batch=1"]
    job, store = load_job(file, [*overrides, *small]), StageStore(root)
    data = prepare_data(job, store)
    runner = StageRunner(Workplace(job, data, store))
    manifests = [chain.attempts[-1].manifest for chain in walk(planned(job, data.total_tokens), runner)]
    assert sum(manifest.metrics.steps_taken for manifest in manifests) == 20
    assert all(manifest.passed for manifest in manifests)
    if job.task.type == "multiplication":
        k = job.task.digits[0]
        assert data.total_tokens == 3 * k * k + k - 5


@pytest.mark.parametrize("name", JOBS)
def test_first_20_steps_run_with_a_stand_in(paper, files, small_gpt2, tmp_path, name: str) -> None:
    size = files if name in GSM8K else ["task.train_examples=64", "training.batch_size=4"]
    assert_first_20_steps_run(paper / f"{name}.toml", size, small_gpt2, tmp_path / "store")


def test_first_20_steps_run_on_released_gsm8k(paper, released_data, small_gpt2, tmp_path) -> None:
    files = [f"task.train={released_data}/gsm8k/test.txt", f"task.validation={released_data}/gsm8k/valid.txt"]
    assert_first_20_steps_run(paper / "gsm8k_phi3.toml", files, small_gpt2, tmp_path / "store")


def test_first_steps_of_a_long_job_never_stand_for_it() -> None:
    tables = {"task": {"digits": [2, 2]}, "schedule": {"tokens_per_stage": 2, "stage_steps": 100, "pretrain_steps": 30}}
    schedule = tables["schedule"] | {"consolidation_stages": 2, "cooldown_stages": 2, "smoothing_lambda": inf}
    job = Job.model_validate({"name": "x", **tables, "schedule": schedule})
    whole = planned(job).stages
    for steps in (1, 20, 30, 31, 130, 400, 600, 10**6):
        short = planned(job.model_copy(update={"max_steps": steps})).stages
        assert sum(stage.spec.steps for stage in short) == min(steps, sum(stage.spec.steps for stage in whole))
        assert [stage.key for stage in short[:-1]] == [stage.key for stage in whole[: len(short) - 1]]
        cut = short[-1].spec.steps < whole[len(short) - 1].spec.steps
        assert (short[-1].key in {stage.key for stage in whole}) is not cut
        assert all(removal.step < short[-1].spec.steps for removal in short[-1].spec.removals)


def test_trying_out_is_a_job_of_its_own_name(stepwise, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text('name = "long"\n[task]\ndigits = [2, 2]\n')
    finished = stepwise("run", "job.toml", "--max-steps", 20, "--dry-run")
    assert finished.code == 0
    assert "1 trial, 20 steps" in finished.out
    document: dict[str, Any] = json.loads(stepwise("plan", "job.toml", "max_steps=20", "--json").out)
    assert document["steps"] == 20
    assert stepwise("run", "job.toml", "--max-steps", 0).code == 2


def test_readme_counts_the_stages_as_they_are(repository: Path, paper: Path, files: list[str]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| \d+ \| \S+ \| (\d+) \|", (repository / "jobs" / "README.md").read_text(), re.M)
    assert [name for name, _ in rows] == JOBS
    for name, stages in rows:
        overrides, longest_cot = (files, 100) if name in GSM8K else ([], None)
        trial = planned(load_job(paper / f"{name}.toml", overrides), longest_cot)
        assert len(trial.stages) == int(stages), name
