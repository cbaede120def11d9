"""A local model is what decides its tokens and weights: told by all of these files, read once, a piece at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_job
from orchestrator.plan import Content, fingerprint

JOB = """
name = "x"
methods = ["no_cot"]
[task]
type = "text"
train = "x.jsonl"
validation = "x.jsonl"
[model]
type = "pretrained"
name = "model"
[schedule]
tokens_per_stage = 1
stage_steps = 2
[training]
batch_size = 8
[evaluation]
speed_examples = 1
speed_batch = 1
"""
OF_TOKENIZERS = ["merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "source.spm", "chat_template.jinja"]
OF_NOBODY = ["notes.txt", "README.md", "pytorch_model.bin", "training.log"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [{"question": f"{n} plus {n}", "cot": f"{n} {n}", "answer": f"{2 * n}"} for n in range(16)]
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("job.toml").write_text(JOB)
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def key(stepwise: Callable[..., Any]) -> str:
    planned = stepwise("plan", "job.toml", "--json")
    assert planned.code == 0, planned.err
    return json.loads(planned.out)["trials"][0]["stages"][0]["key"]


@pytest.mark.parametrize("name", OF_TOKENIZERS)
def test_file_that_decides_the_tokens_decides_the_key(folder: Path, stepwise: Any, name: str) -> None:
    for file in ("config.json", "model.safetensors", name):
        (folder / file).write_text("one")
    before = key(stepwise)
    assert key(stepwise) == before
    (folder / name).write_text("two")
    assert key(stepwise) != before


@pytest.mark.parametrize("others", [OF_NOBODY, [*OF_NOBODY, "tokenizer.json", "merges.txt", "vocab.txt"]], ids=len)
def test_folder_whose_other_files_decide_nothing_has_the_key_it_always_had(folder: Path, others: list[str]) -> None:
    """Beside a tokenizer.json nothing reads the files that it was made of."""
    counted = sorted({"config.json", "model.safetensors", *(name for name in others if name.endswith(".json"))})
    for file in {*counted, *others}:
        (folder / file).write_text(file)
    job = load_job(Path("job.toml"))
    content = Content.of(job).document(job)["model"]
    assert content["sha256"] == hashlib.sha256("".join(counted).encode()).hexdigest()


def slow_tokenizer(folder: Path, small_gpt2: Path) -> None:
    """The model with its tokenizer in two files, as older checkpoints have it."""
    shutil.copytree(small_gpt2, folder, dirs_exist_ok=True)
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["vocab"]))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in whole["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    names = dict.fromkeys(("eos_token", "bos_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))


def test_finished_job_whose_tokenizer_changed_is_not_adopted(folder: Path, own_process: Any, small_gpt2: Path) -> None:
    slow_tokenizer(folder, small_gpt2)
    assert own_process("run", "job.toml", "--store", "store").code == 0
    assert own_process("run", "job.toml", "--store", "store").code == 0
    merges = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:-40]))
    refused = own_process("run", "job.toml", "--store", "store")
    assert refused.code == 2
    assert "RUN005" in refused.err and "model.sha256" in refused.err


PROGRAM = """
import sys
from pathlib import Path
from orchestrator.cli import main
sys.argv = ["stepwise", "plan", "job.toml"]
try:
    main()
finally:
    read = next(int(line.split()[1]) for line in open("/proc/self/io") if line.startswith("rchar"))
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(read, peak * 1024, file=sys.stderr)
"""
LARGE = 1 << 30


def test_large_model_is_read_once_by_all_commands_and_never_held(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(LARGE)

    def planned() -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
        read, peak = map(int, done.stderr.split()[-2:])
        return read, peak

    first, second = planned(), planned()
    assert first[0] > LARGE > 4 * second[0]
    assert max(first[1], second[1]) < LARGE // 2
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"other")
    assert planned()[0] > LARGE


def test_what_is_remembered_is_not_believed_if_it_is_no_hash(folder: Path, stepwise: Any) -> None:
    (folder / "config.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(1 << 25)
    before = key(stepwise)
    [remembered] = Path("cache/stepwise/models").iterdir()
    for text in ("", "[]", "{", json.dumps(json.loads(remembered.read_text()) | {"sha256": "no"})):
        remembered.write_text(text)
        fingerprint._fingerprint.cache_clear()
        assert key(stepwise) == before
    shutil.rmtree("cache")
    Path("cache").write_text("a file in its place")
    fingerprint._fingerprint.cache_clear()
    assert key(stepwise) == before
