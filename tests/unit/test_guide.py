"""The own-data guide of the README, as a reader types it: up to the training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

HEADING = "## Your own data in ten minutes\n"


def blocks(readme: str, language: str) -> list[str]:
    """The guide's code blocks of one language."""
    guide = readme.split(HEADING)[1].split("\n## ")[0]
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", guide, re.DOTALL | re.MULTILINE)
    return [dedent(block) for found, block in fenced if found == language]


def test_doctor_and_plan_say_of_the_guides_data_what_it_shows(
    repository: Path, tmp_path: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (repository / "README.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    (make,), (row,), (job,) = (blocks(readme, language) for language in ("python", "json", "toml"))
    exec(make, {})  # noqa: S102
    Path("sums.toml").write_text(job)

    first = Path("train.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == json.loads(row)
    shown = next(block for block in blocks(readme, "") if block.startswith("$ stepwise doctor"))
    said = stepwise("doctor", "sums.toml").out + stepwise("plan", "sums.toml").out
    for line in shown.splitlines():
        if line != "..." and not line.startswith(("$", "about")):
            assert line in said.splitlines()
