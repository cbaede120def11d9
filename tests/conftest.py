"""What every test may use: the repository, the released data where it is, and the command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from orchestrator.delivery import Background

REPOSITORY = Path(__file__).parents[1]
RELEASED_DATA = REPOSITORY.parent / "shared" / "data"

PROCESSES = 2
"""Test processes of `pytest` without a path: as many as the fewest cores that the tests are meant for."""
SECONDS_TO_END = 30
MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 4 << 30  # noqa: S108

settings.register_profile("stepwise", deadline=None, derandomize=True)
settings.load_profile("stepwise")

# A store syncs every file that it writes, 9 ms each on a busy disk, a hundredth of one here.
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
# A test process is one of two on two cores. Workers of a command set their own number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell's background job ignores SIGINT and so would every child of a test, whom nothing could interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of test processes: one for a path that somebody names, to look into it."""
    return PROCESSES if config.args_source is pytest.Config.ArgsSource.TESTPATHS else 0


@pytest.fixture(autouse=True)
def no_thread_of_ours_is_left() -> Iterator[None]:
    """Fail a test that leaves a thread of the package: what it prints would stand in the output of the next."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        target = getattr(thread, "_target", None)  # gone once the thread has ended
        owner = getattr(target, "__self__", None)
        if isinstance(owner, Background):
            assert owner.closed, f"{thread.name} may still say something"
        elif getattr(target, "__module__", None) and target.__module__.startswith("orchestrator"):
            thread.join(SECONDS_TO_END)
            assert not thread.is_alive(), thread


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


@pytest.fixture
def own_process() -> Callable[..., Finished]:
    """The real command line in a process of its own, for what starts Ray: a process keeps its first Ray's token."""

    def run(*words: object) -> Finished:
        ended = subprocess.run(
            [sys.executable, "-m", "orchestrator", *map(str, words)], capture_output=True, text=True, timeout=280
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)

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


@pytest.fixture(scope="session")
def gsm8k_lines() -> list[str]:
    """Problems in GSM8K's format, none of them from there: CoTs of up to four steps, answers with commas."""
    lines = []
    for n in range(1, 61):
        steps = [f"<<{n}*{i}={n * i}>>" for i in range(2, 2 + n % 5)]
        question = f"Ann buys {n} bags of {1 + n % 5} apples  at $1.50 each. How many apples are in them?"
        lines.append(f"{question}||{' '.join(steps)} #### {1_000 * n * (1 + n % 5):,}")
    return lines


@pytest.fixture
def gsm8k(tmp_path: Path, gsm8k_lines: list[str]) -> Path:
    """A folder with ``train.txt`` and ``valid.txt`` of them."""
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(gsm8k_lines[:45]) + "\n\n")
    (folder / "valid.txt").write_text("\n".join(gsm8k_lines[45:]) + "\n")
    return folder


@pytest.fixture(scope="session")
def small_gpt2(tmp_path_factory: pytest.TempPathFactory, gsm8k_lines: list[str]) -> Path:
    """A GPT-2 of one narrow layer, and a byte-level tokenizer to which blank and digit are one token.

    Its weights are random but for a bias to end the text, so that decoding takes no time.
    """
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ByteLevelBPETokenizer()
    digits = [" 0 1 2 3 4 5 6 7 8 9 * + ( )"] * 50
    words.train_from_iterator([*gsm8k_lines, *digits], vocab_size=400, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words._tokenizer)
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    folder = tmp_path_factory.mktemp("small-gpt2")
    shape = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=2048,
        n_layer=1,
        n_embd=16,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(shape)
    model.transformer.ln_f.bias.data = 1_000 * model.transformer.wte.weight.data[tokenizer.eos_token_id]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
