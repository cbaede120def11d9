"""A TMPDIR as Slurm gives it, where nothing can take its place: it is said what to set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ray import local

JOB = """
name = "tiny"
max_steps = 2
[task]
digits = [1, 2]
[model]
layers = 1
width = 32
heads = 2
[schedule]
tokens_per_stage = 1
stage_steps = 2
[evaluation]
speed_examples = 1
speed_batch = 1
"""
TOO_LONG = "slurm_jobdir/1355700/tmp.t0016/" + "x" * 60


def test_folder_that_nothing_replaces_is_refused_before_anything(
    tmp_path: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", f"/{TOO_LONG}")
    monkeypatch.setattr(local, "SHORT_FOLDERS", ())
    (tmp_path / "job.toml").write_text(JOB)
    refused = stepwise("run", tmp_path / "job.toml", "--store", tmp_path / "s")
    assert refused.code == 2 and "RAY002" in refused.err and "TMPDIR" in refused.err
    assert f"at most {local.MOST_FOLDER_BYTES} ASCII characters" in refused.err
    assert not (tmp_path / "s").exists()
