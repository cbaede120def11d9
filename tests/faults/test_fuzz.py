"""Whatever is in a job file or in a file of the store: our own error or none, in under two seconds, nothing left
behind, no secret echoed. Rows of the research notes' list (reliability §6) are in ``tests/unit/cli/test_bad_input.py``.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.config import Job
from orchestrator.errors import InputError, StepwiseError, StoreError
from orchestrator.method.models.hub import load_tokenizer
from orchestrator.method.tokens import token_table
from orchestrator.plan import build_plan
from orchestrator.results.frontier import frontier
from orchestrator.store import StageStore, save_job, saved_plans
from orchestrator.tasks import make_task
from orchestrator.trials.drift import refuse_drift
from orchestrator.trials.running import RunningJob

SECRET = "hunter2-8731"  # noqa: S105
GOOD = {"name": "x", "task": {"digits": [2, 2]}, "schedule": {"tokens_per_stage": 4, "stage_steps": 20}}
SECONDS = 2.0

fuzzed = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
secrets = st.sampled_from(
    [f"https://me:{SECRET}@host", f"postgresql://u:{SECRET}@h/db", f"http://:{SECRET}@h", f"x://a:{SECRET}@b@c"]
)
names = st.sampled_from([*Job.model_fields, "uri", "url", "token", "digits", "type"]) | secrets
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | secrets,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if value is None:
        return "{}"
    if isinstance(value, float):
        return repr(value) if value == value and abs(value) != float("inf") else "nan"
    return json.dumps(value).replace("\x7f", "\\u007f")


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@fuzzed
@given(st.dictionaries(names, values, max_size=3), st.lists(st.tuples(names, values), max_size=2))
@example({"tracking": {"uri": f"https://me:{SECRET}@h"}}, [])
@example({f"https://me:{SECRET}@h": 1}, [])
@example({"tracking": {f"https://me:{SECRET}@h": 1}}, [])
@example({}, [(f"https://me:{SECRET}@h", 1)])
def test_any_job_is_planned_or_refused_at_once_without_a_trace(tmp_path, stepwise, monkeypatch, document, overrides):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.toml"
    path.write_text("".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in (GOOD | document).items()))
    before, started = tree(tmp_path), time.process_time()
    finished = stepwise("run", "--dry-run", "job.toml", *(f"{key}={toml(value)}" for key, value in overrides))
    assert time.process_time() - started < SECONDS
    assert finished.code in (0, 2)
    assert finished.code == 0 or finished.err.startswith(("error[CFG", "error[CLI", "error[CLU", "error[MOD"))
    assert "Traceback" not in finished.err
    assert SECRET not in finished.out + finished.err
    assert tree(tmp_path) == before


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    """A store with the files that are read before anything is trained."""
    store = StageStore(tmp_path / "store")
    plan = build_plan(Job.model_validate(GOOD))
    save_job(plan, store)
    (store.root / "jobs" / "x" / "drift.json").write_text(
        json.dumps([{"accepted_at": 1.0, "lines": ["torch: 1 -> 2"]}])
    )
    return store


patches = st.tuples(st.floats(0, 1), st.integers(0, 60), st.text('0123456789"{}[],:.ae-\\/ \x00', max_size=6))


def patched(text: str, patch: tuple[float, int, str]) -> str:
    start = int(patch[0] * len(text))
    return text[:start] + patch[2] + text[start + patch[1] :]


@pytest.mark.parametrize("file", ["job.json", "drift.json"])
def test_file_of_a_job_patched_anywhere_is_read_or_refused_by_name(store: StageStore, file: str) -> None:
    path = store.root / "jobs" / "x" / file
    text = path.read_text()

    @fuzzed
    @given(patches)
    def read_or_refused(patch: tuple[float, int, str]) -> None:
        path.write_text(patched(text, patch))
        try:
            for plan in saved_plans(store):
                frontier(plan, store)
                refuse_drift(RunningJob(plan, store), accept=False)
        except StepwiseError as refused:
            assert isinstance(refused, InputError) or file in str(refused)

    read_or_refused()


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "flipped": flip,
    "torn": lambda data, at: data[:at],
    "grown": lambda data, at: data + b"x",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["validation.arrow", "validation.sha256"])
def test_token_table_with_any_damage_is_refused_by_name(tmp_path: Path, name: str, damage: Callable) -> None:
    job = Job.model_validate(GOOD)
    task = make_task(job.task)
    path = tmp_path / "validation.arrow"
    table = token_table(task, "validation", load_tokenizer(job.model, task.symbols), path)
    assert len(table) > 0
    whole = (tmp_path / name).read_bytes()

    @settings(max_examples=10)
    @given(st.integers(0, len(whole) - 1))
    def refused(at: int) -> None:
        (tmp_path / name).write_bytes(damage(whole, at))
        with pytest.raises(StoreError, match=r"DAT020.*validation\.arrow"):
            token_table(task, "validation", load_tokenizer(job.model, task.symbols), path)

    refused()
    shutil.rmtree(tmp_path)
