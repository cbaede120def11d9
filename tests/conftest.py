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
