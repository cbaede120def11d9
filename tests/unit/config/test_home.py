"""``~`` is the home folder wherever a path is given, also where no shell has replaced it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import Job, load_job

JOB = """
name = "x"
methods = ["no_cot"]
[task]
type = "text"
train = "~/data/train.jsonl"
validation = "~/data/train.jsonl"
test = "~/data/train.jsonl"
[model]
layers = 1
width = 16
heads = 2
[schedule]
tokens_per_stage = 1
stage_steps = 2
[training]
batch_size = 8
[evaluation]
speed_examples = 1
speed_batch = 1
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with examples and a job; the current folder is another."""
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "data").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("STEPWISE_STORE", raising=False)
    rows = [{"question": f"{n} ?", "cot": f"{n} {n}", "answer": f"{n}"} for n in range(16)]
    (home / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "job.toml").write_text(JOB)
    return home


def nothing_is_called_tilde() -> bool:
    return not [path for path in Path.cwd().rglob("*") if "~" in path.name]


def test_job_data_and_store_below_home_are_found(
    home: Path, stepwise: Callable[..., Any], own_process: Callable[..., Any], monkeypatch: Any
) -> None:
    assert stepwise("doctor", "~/job.toml", "--store", "~/first").code == 0
    assert (home / "first" / "data").is_dir()
    monkeypatch.setenv("STEPWISE_STORE", "~/second")
    ran = own_process("run", "~/job.toml")
    assert ran.code == 0, ran.err
    assert (home / "second" / "stages").is_dir()
    assert stepwise("status", "~/job.toml").code == 0
    assert stepwise("evaluate", "x").code == 0
    assert stepwise("export", "x", "~/taken").code == 0
    assert (home / "taken" / "README.md").exists()
    assert nothing_is_called_tilde()


def test_folder_of_a_dataset_and_of_a_model_below_home_are_found(home: Path, stepwise: Any, small_gpt2: Path) -> None:
    (home / "gpt2").symlink_to(small_gpt2)
    words = ['task.dataset="~/data"', "task.train=train", "task.validation=train", "task.test=train"]
    words += ['model={type="pretrained", name="~/gpt2"}']
    looked = stepwise("doctor", "~/job.toml", *words)
    assert looked.code == 0, looked.err


def test_file_is_written_below_home(home: Path, stepwise: Any) -> None:
    assert stepwise("init", "~/new.toml").code == 0
    assert (home / "new.toml").exists() and nothing_is_called_tilde()


def test_cluster_file_below_home_is_read(home: Path, stepwise: Any) -> None:
    (home / "cluster.yaml").write_text("address: nowhere\nstore: /store\n")
    refused = stepwise("submit", "~/job.toml", "--cluster", "~/cluster.yaml")
    assert f"{home}/cluster.yaml: address" in refused.err


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///~/mlflow.db", "sqlite:///{}/mlflow.db"),
        ("~/mlruns", "{}/mlruns"),
        ("file:~/mlruns", "file:{}/mlruns"),
        ("file:///~/mlruns", "file://{}/mlruns"),
        ("https://mlflow.example.org/~me", "https://mlflow.example.org/~me"),
    ],
)
def test_record_below_home_is_there(home: Path, uri: str, expected: str) -> None:
    job = load_job(home / "job.toml", [f"tracking.uri={uri}"])
    assert job.tracking.uri == expected.format(home)
    assert Job.model_validate_json(job.model_dump_json()) == job


FIELDS = ["task.train", "task.validation", "task.dataset", "tracking.uri"]


@pytest.mark.parametrize(
    "words",
    [
        *(["plan", "~/job.toml", f"{field}=~nobody-of-this-name/x"] for field in FIELDS),
        ["plan", "~/job.toml", 'model={type="pretrained", name="~nobody-of-this-name/x"}'],
        ["run", "~/job.toml", "--store", "~nobody-of-this-name/x"],
        ["init", "~nobody-of-this-name/job.toml"],
        ["plan", "~nobody-of-this-name/job.toml"],
    ],
    ids=" ".join,
)
def test_home_of_nobody_is_refused_by_name(home: Path, stepwise: Any, words: list[str]) -> None:
    refused = stepwise(*words)
    assert refused.code == 2
    assert "~nobody-of-this-name" in refused.err and "home folder" in refused.err
    assert nothing_is_called_tilde()
