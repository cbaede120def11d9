"""What every test may use: the repository, the released data where it is, and the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).parents[1]
RELEASED_DATA = REPOSITORY.parent / "shared" / "data"

settings.register_profile("stepwise", deadline=None, derandomize=True)
settings.load_profile("stepwise")


class Finished(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """The real command line, in this process: ``stepwise("plan", "job.toml")``."""
    from orchestrator.cli import main

    def run(*words: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["stepwise", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Finished(exit_.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def released_data() -> Path:
    """The authors' files, which are not part of this repository."""
    if not RELEASED_DATA.is_dir():
        pytest.skip(f"the authors' data is not in {RELEASED_DATA}")
    return RELEASED_DATA


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one core, so that results do not depend on the machine and small models are not slowed down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
