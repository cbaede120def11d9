"""Real runs where a stranger starts them: a TMPDIR as Slurm gives it, a terminal without Unicode, a closed pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from commands import TINY
from mlflow import MlflowClient

JOB = f"""
name = "tiny"
{TINY}
[schedule]
tokens_per_stage = 3
stage_steps = 4
"""
SHORT = Path("/tmp")  # noqa: S108


def run(folder: Path, environment: Mapping[str, str], after: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "job.toml").write_text(JOB)
    kept = {key: value for key, value in os.environ.items() if key != "RAY_TMPDIR"}
    line = f"{sys.executable} -m orchestrator run job.toml {after}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        encoding="latin-1",
        timeout=600,
    )


@pytest.mark.parametrize(
    "folder", [f"slurm_jobdir/1355700/tmp.t0016/{'x' * 60}", "größe"], ids=["too long", "not ASCII"]
)
def test_run_starts_whatever_the_folder_for_temporary_files_is(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    before = set(SHORT.glob("stepwise-*"))
    done = run(tmp_path, {"TMPDIR": str(place)})
    assert done.returncode == 0, done.stderr + done.stdout
    assert not set(SHORT.glob("stepwise-*")) - before


@pytest.mark.parametrize("after", ["", "| head -n 1"], ids=["Latin 1", "closed pipe"])
def test_records_are_finished_whoever_reads_what_is_printed(tmp_path: Path, after: str) -> None:
    done = run(tmp_path, {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}, after)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "tiny: 1 trial" in done.stdout and ("exact match" in done.stdout) == (not after)
    assert (tmp_path / "stepwise-store/jobs/tiny/report/report.html").is_file()
    uri = f"sqlite:///{tmp_path}/stepwise-store/mlflow.db"
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("stepwise/tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 2
