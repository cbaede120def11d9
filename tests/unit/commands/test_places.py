"""Where a command runs, and where things lie, decides nothing: what a job read is remembered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import load_job
from orchestrator.store import StageStore, plan_for, save_job
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

JOB = """
name = "sums"
[task]
type = "text"
train = "train.jsonl"
validation = "valid.jsonl"
test = "valid.jsonl"
[model]
layers = 1
width = 16
heads = 2
[schedule]
tokens_per_stage = 2
stage_steps = 2
pretrain_steps = 2
[training]
batch_size = 4
[evaluation]
speed_examples = 1
speed_batch = 1
"""


def write_examples(folder: Path, first: int) -> None:
    """Sums of three numbers, other ones for another ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, begin in (("train", first), ("valid", first + 20)):
        rows = [(f"{a} + 1 + 1", f"{a} + 1 = {a + 1}", f"{a + 2}") for a in range(begin, begin + 16)]
        lines = (json.dumps({"question": q, "cot": cot, "answer": answer}) for q, cot, answer in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


def trained(folder: Path, root: Path, stages: int | None = None) -> StageStore:
    """The job of the current folder, as `stepwise run` leaves it: all of its stages, or the first few."""
    job, store = load_job(folder / "job.toml"), StageStore(root)
    data = prepare_data(job, store)
    plan = plan_for(job, store, data.total_tokens)
    save_job(plan, store)
    for trial in plan.trials:
        runner = StageRunner(Workplace(trial.job, data, store))
        for number, _ in enumerate(walk(trial, runner), 1):
            if number == stages:
                break
    return store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``rel`` (a job and its data), and ``other`` with data of the same name."""
    write_examples(tmp_path / "rel", 10)
    write_examples(tmp_path / "other", 50)
    (tmp_path / "rel/job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path / "rel")
    return tmp_path


@pytest.mark.parametrize("at", ["rel", "other", "nowhere", "gone"])
def test_finished_job_is_asked_from_everywhere(
    here: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    trained(here / "rel", here / "s")
    (here / "nowhere").mkdir()
    monkeypatch.chdir(here / ("nowhere" if at == "gone" else at))
    if at == "gone":
        shutil.rmtree(here / "rel")
    store = ("--store", here / "s")
    assert [s["state"] for s in json.loads(stepwise("status", *store, "--json").out)] == ["finished"]
    for words in (
        ("report", "sums"),
        ("plan", "sums"),
        ("compare", "sums", "sums"),
        ("predict", "sums", "10 + 1 + 1"),
        ("export", "sums", "home"),
        ("track", "sums"),
    ):
        done = stepwise(*words, *store)
        assert done.code == 0, (words, done.err)
    assert "unfinished" not in stepwise("report", "sums", *store).out
    assert "30 + 1 + 1" in Path("home/README.md").read_text()
    needs_data = stepwise("evaluate", "sums", *store)
    assert needs_data.code == (2 if at == "gone" else 0)
    longer = stepwise("extend", "sums", "--seeds", "1", "--dry-run", *store)
    assert longer.code == (2 if at == "gone" else 0), longer.err
    if at == "gone":
        assert f"{here}/rel/valid.jsonl not found" in needs_data.err
        assert f"{here}/rel/" in longer.err and "DAT001" in longer.err


def test_finished_job_is_run_again_without_its_data(here: Path, stepwise: Callable) -> None:
    trained(here / "rel", here / "s")
    for split in ("train", "valid"):
        (here / f"rel/{split}.jsonl").unlink()
    again = stepwise("run", "sums", "--store", here / "s")
    assert again.code == 0, again.err
    assert "exact match" in again.out
    by_file = stepwise("report", "job.toml", "--store", here / "s")
    assert by_file.code == 0, by_file.err


def test_what_is_left_to_train_is_trained_on_the_same_data_or_not_at_all(here: Path, stepwise: Callable) -> None:
    trained(here / "rel", here / "s", stages=1)
    write_examples(here / "rel", 70)
    changed = stepwise("run", "sums", "--store", here / "s")
    assert changed.code == 2 and "RUN005" in changed.err and "task.train" in changed.err
    state = stepwise("status", "sums", "--store", here / "s")
    assert "unfinished" in state.out and "1/5" in state.out, state.out
    (here / "rel/train.jsonl").unlink()
    gone = stepwise("run", "sums", "--store", here / "s")
    assert gone.code == 2 and "DAT001" in gone.err and f"{here}/rel/train.jsonl" in gone.err


def test_model_folder_is_never_taken_for_another_of_its_name(
    here: Path, stepwise: Callable, small_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_gpt2, here / "rel/models/tiny")
    model = '[model]\ntype = "pretrained"\nname = "models/tiny"\n'
    (here / "rel/job.toml").write_text(JOB.replace("[model]\nlayers = 1\nwidth = 16\nheads = 2\n", model))
    trained(here / "rel", here / "s")
    assert json.loads((here / "s/jobs/sums/job.json").read_text())["job"]["model"]["name"] == f"{here}/rel/models/tiny"
    other = here / "other/models/tiny"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    monkeypatch.chdir(here / "other")
    for words in (("report", "sums"), ("predict", "sums", "10 + 1 + 1"), ("status", "sums")):
        done = stepwise(*words, "--store", here / "s")
        assert done.code == 0 and "unfinished" not in done.out, done.err
    shutil.rmtree(here / "rel/models")
    assert stepwise("report", "sums", "--store", here / "s").code == 0
    refused = stepwise("run", here / "rel/job.toml", f"model.name='{here}/rel/models/tiny'", "--store", here / "s")
    assert "MOD015" in refused.err


def test_paths_change_neither_keys_nor_what_is_shown(here: Path, stepwise: Callable) -> None:
    keys = []
    for words in ((), (f"task.train='{here}/rel/train.jsonl'",)):
        planned = json.loads(stepwise("plan", "job.toml", *words, "--json").out)
        keys.append([stage["key"] for trial in planned["trials"] for stage in trial["stages"]])
    assert keys[0] == keys[1]
    trained(here / "rel", here / "s")
    assert stepwise("export", "sums", "home", "--store", here / "s").code == 0
    card = Path("home/README.md").read_text()
    assert "train.jsonl" in card and str(here) not in card
