"""The code is as ruff wants it: its rules, and its one way to write a line down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("words", ["check", "format --check"])
def test_ruff_finds_nothing(repository: Path, words: str) -> None:
    command = [sys.executable, "-m", "ruff", *words.split(), "--no-cache"]
    found = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
