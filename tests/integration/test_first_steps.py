"""`stepwise run --max-steps` of a paper's job with real Ray: GSM8K's format from local files, a stand-in model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from orchestrator.config import load_job
from orchestrator.plan import build_plan


def stepwise(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def test_first_steps_of_a_paper_job_do_not_stand_for_the_whole_job(
    repository: Path, tmp_path: Path, gsm8k: Path, gsm8k_lines: list[str], small_gpt2: Path
) -> None:
    (gsm8k / "train.txt").write_text("\n".join(gsm8k_lines * 5))  # ten batches: a token goes every ten steps
    job = repository / "jobs" / "paper" / "gsm8k_gpt2.toml"
    overrides = ["task.train=gsm8k/train.txt", "task.validation=gsm8k/valid.txt", f"model.name={small_gpt2}"]
    overrides += ["resources.gpus_per_worker=0", "stability.probe_examples=8", "evaluation.speed_examples=2"]
    finished = stepwise("run", job, *overrides, "--max-steps", 24, cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report = json.loads(stepwise("report", "gsm8k-gpt2-24-steps", "--json", cwd=tmp_path).stdout)
    assert [(point["removed_tokens"], point["step"]) for point in report] == [(0, 10), (1, 20), (2, 24)]
    files = [f"task.train={gsm8k}/train.txt", f"task.validation={gsm8k}/valid.txt"]
    whole = build_plan(load_job(job, [*overrides, *files]), report[0]["total_tokens"]).unique_stages
    assert [point["stage_key"] in whole for point in report] == [True, True, False]
