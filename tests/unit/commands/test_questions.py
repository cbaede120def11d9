"""Questions from a file that another system wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config import Job
from orchestrator.plan import build_plan
from orchestrator.store import StageStore, save_job
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

JOB = {
    "name": "x",
    "methods": ["no_cot"],
    "task": {"digits": [1, 1]},
    "model": {"layers": 1, "width": 16, "heads": 2},
    "schedule": {"tokens_per_stage": 1, "stage_steps": 1},
    "training": {"batch_size": 8},
    "evaluation": {"speed_examples": 1, "speed_batch": 1, "examples": 2},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job, store = Job.model_validate(JOB), StageStore(tmp_path_factory.mktemp("asked"))
    data = prepare_data(job, store)
    plan = build_plan(job, data.total_tokens)
    save_job(plan, store)
    list(walk(plan.trials[0], StageRunner(Workplace(job, data, store))))
    return store.root


def asked(store: Path, questions: bytes) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-m", "orchestrator", "predict", "x", "--store", store, "--json"]
    return subprocess.run(words, input=questions, capture_output=True)


def test_byte_order_mark_is_no_part_of_the_first_question(store: Path) -> None:
    done = asked(store, b"\xef\xbb\xbf3 * 2\r\n4 * 2\r\n")
    assert done.returncode == 0, done.stderr
    assert [answer["question"] for answer in json.loads(done.stdout)["predictions"]] == ["3 * 2", "4 * 2"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_questions_in_another_encoding_are_refused(store: Path, monkeypatch: pytest.MonkeyPatch, locale: str) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    refused = asked(store, "3 * 2\n".encode("utf-16"))
    assert refused.returncode == 2
    assert b"error[CLI008] standard input:1: byte 0 is not UTF-8" in refused.stderr
