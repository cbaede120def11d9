"""CoTs that nothing has counted yet, and data that have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")

COTS = {
    "Chinese": "先看小明原来有多少个苹果然后再看小红又给了他多少个苹果",
    "Japanese": "まずりんごの数を確認してからみかんの数を足し合わせると",
    "a long number": "49660493255901148684789012489",
    "a long word": "Donaudampfschifffahrtsgesellschaft",
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A job file for examples with one CoT; what to call it with."""
    monkeypatch.chdir(tmp_path)

    def written(cot: str | None, model: str = "layers = 1\nwidth = 16\nheads = 2", methods: str = "stepwise") -> None:
        rows = [{"question": f"{n} ?", "answer": f"{n}"} | ({} if cot is None else {"cot": cot}) for n in range(16)]
        Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Path("job.toml").write_text(
            f'name = "x"\nmethods = ["{methods}"]\n[task]\ntype = "text"\ntrain = "x.jsonl"\nvalidation = "x.jsonl"\n'
            f"[model]\n{model}\n[schedule]\ntokens_per_stage = 8\nstage_steps = 8\n[training]\nbatch_size = 8\n"
            "[evaluation]\nspeed_examples = 1\nspeed_batch = 1\n"
        )

    return written


@pytest.mark.parametrize("cot", COTS.values(), ids=COTS)
def test_estimate_refuses_nothing_and_the_tokenizer_does(job: Any, stepwise: Any, small_gpt2: Path, cot: str) -> None:
    job(cot, f'type = "pretrained"\nname = "{small_gpt2}"')
    planned = stepwise("plan", "job.toml")
    assert planned.code == 0, planned.err
    assert "about: the longest CoT is estimated at " in planned.out and "removed, about" in planned.out
    assert stepwise("run", "job.toml", "--dry-run").code == 0
    counted = json.loads(stepwise("doctor", "job.toml", "--json", "--store", "store").out)["total_tokens"]
    assert counted > 8
    refused = stepwise("doctor", "job.toml", "schedule.tokens_per_stage=99", "schedule.stage_steps=99")
    assert (
        refused.code == 2
        and f"CFG015] schedule.tokens_per_stage: 99 exceeds the longest CoT ({counted} " in refused.err
    )


def test_estimate_of_a_teachers_length_refuses_nothing(job: Any, stepwise: Any, small_gpt2: Path) -> None:
    job("苹果" * 20, f'type = "pretrained"\nname = "{small_gpt2}"', "icot_kd")
    assert stepwise("plan", "job.toml", "icot_kd.teacher_epochs=40", "schedule.tokens_per_stage=1").code == 0


@pytest.mark.parametrize("cot", ["", None], ids=["empty", "no column"])
def test_data_without_cot_are_for_no_cot(job: Any, stepwise: Any, cot: str | None) -> None:
    job(cot, methods="no_cot")
    planned = stepwise("plan", "job.toml")
    assert planned.code == 0 and "0/0" in planned.out
    assert "no example has a CoT" in stepwise("doctor", "job.toml", "--store", "store").out
    for method in ("stepwise", "explicit_cot", "icot_kd"):
        refused = stepwise("plan", "job.toml", f'methods=["no_cot", "{method}"]')
        assert refused.code == 2
        assert refused.err.startswith(f"error[CFG038] methods: no example has a CoT, and {method} cannot do without")


def test_job_without_cot_runs_to_its_report(job: Any, stepwise: Any, own_process: Any) -> None:
    job(None, methods="no_cot")
    ran = own_process("run", "job.toml", "--store", "store")
    assert ran.code == 0 and "MLflow has not got everything" not in ran.out
    [point] = json.loads(stepwise("report", "x", "--json", "--store", "store").out)
    assert (point["removed_tokens"], point["total_tokens"], point["verdict"]) == (0, 0, "good")
    assert Path("store/jobs/x/report/report.html").exists()
