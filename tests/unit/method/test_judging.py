"""What counts as right: what the tokenizer makes of the answer; of numbers, the usual ways to write one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unicodedata import normalize

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from orchestrator.config import Job
from orchestrator.plan import build_plan
from orchestrator.store import StageStore, save_job
from orchestrator.tasks.text import same_number
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

END = "<end>"


def byte_level(normalizer: Any) -> Tokenizer:
    symbols = [END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, []))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def word_pieces() -> Tokenizer:
    """As BERT's: no capitals, no accents, and a blank between signs."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789#?"
    symbols = [END, "[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({symbol: i for i, symbol in enumerate(symbols)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], str]] = {
    "keeps all": (lambda: byte_level(None), ""),
    "one Unicode form": (lambda: byte_level(normalizers.NFC()), "Unicode form"),
    "no capitals": (lambda: byte_level(normalizers.Lowercase()), "capitals"),
    "word pieces": (word_pieces, "accents"),
}


def save_model(folder: Path, tokenizer: Tokenizer) -> Path:
    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    torch.manual_seed(0)
    shape = {"n_positions": 128, "n_layer": 1, "n_embd": 32, "n_head": 2, "bos_token_id": None, "eos_token_id": None}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(own), **shape)).save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def write_examples(file: Path, answers: list[str]) -> None:
    """With CoTs that nobody can foresee, so that no answer is judged with the CoT before it."""
    draw = Random(file.name)
    rows = [
        {"question": f"{draw.randint(10, 99)} ?", "cot": f"{draw.randint(10, 99)}", "answer": answer}
        for answer in answers
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def trained(folder: Path, model: dict[str, Any], **task: str) -> None:
    """What `stepwise run` leaves of the first stage."""
    document = {
        "name": "strange",
        "methods": ["explicit_cot"],
        "task": {"type": "text", "train": "train.jsonl", "validation": "valid.jsonl", **task},
        "model": model,
        "schedule": {"pretrain_steps": 80, "tokens_per_stage": 1, "stage_steps": 1},
        "training": {"learning_rate": 1e-2, "batch_size": 16, "precision": "fp32"},
        "evaluation": {"speed_examples": 1, "speed_batch": 1},
    }
    job, store = Job.model_validate(document), StageStore(folder / "store")
    data = prepare_data(job, store)
    plan = build_plan(job, data.total_tokens)
    save_job(plan, store)
    next(walk(plan.trials[0], StageRunner(Workplace(job, data, store))))


def exact_match(stepwise: Any, folder: Path) -> float:
    words = ["evaluate", "strange:explicit_cot:0", "--split", "validation", "--json", "--store", folder / "store"]
    return json.loads(stepwise(*words).out)["exact_match"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(("make", "loses"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_answer_is_right_if_it_is_what_the_tokenizer_makes_of_it(
    tmp_path: Path, monkeypatch: Any, stepwise: Any, make: Callable[[], Tokenizer], loses: str, form: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in (("train.jsonl", 64), ("valid.jsonl", 16)):
        write_examples(Path(name), [normalize(form, "Hà Nội")] * size)
    model = {"type": "pretrained", "name": str(save_model(tmp_path / "model", make()))}
    trained(tmp_path, model)
    assert exact_match(stepwise, tmp_path) == 1.0
    [point] = json.loads(stepwise("report", "strange", "--json", "--store", "store").out)
    assert point["exact_match"] == 1.0

    Path("job.toml").write_text(
        'name = "x"\n[task]\ntype = "text"\ntrain = "train.jsonl"\nvalidation = "valid.jsonl"\n[model]\n'
        f'type = "pretrained"\nname = "{model["name"]}"\n[schedule]\ntokens_per_stage = 1\nstage_steps = 9\n'
    )
    said = " ".join(stepwise("doctor", "job.toml", "--store", "store").out.split())
    kept = not loses or (loses, form) == ("Unicode form", "NFC")
    assert ("every question, CoT and answer comes back from its tokens" in said) is kept
    if not kept:
        assert f"the tokenizer does not keep the {loses} of 64 answers of train, the first at train.jsonl:1: " in said
        assert f"the {loses} of 16 answers of validation" in said


RIGHT = [
    "1234",
    "1,234",
    "1 234",
    "1\u00a0234",
    "1’234",
    "１２３４",
    "１，２３４",
    "$1,234.00",
    "1234 €",
    "+1234",
    "1234.",
]
WRONG = ["(1,234)", "1,2,34", "12,34", "1 2 34", "1, 234", "1-234", "1–234", "−1234", "[1234]", "1234%", "1.234"]


def test_number_is_right_in_the_usual_writings_and_no_others(tmp_path: Path, monkeypatch: Any, stepwise: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_examples(Path("train.jsonl"), ["1234"] * 64)
    write_examples(Path("valid.jsonl"), RIGHT)
    trained(tmp_path, {"layers": 1, "width": 32, "heads": 2}, answers="number")
    assert exact_match(stepwise, tmp_path) == 1.0


@pytest.mark.parametrize("text", RIGHT)
def test_usual_writing_of_a_number_is_it(text: str) -> None:
    assert same_number(text, "1234")


@pytest.mark.parametrize("text", WRONG)
def test_anything_else_is_another_answer(text: str) -> None:
    assert not same_number(text, "1234")


@pytest.mark.parametrize("text", ["-5", "−5", "－5", "-$5", "$-5", "-5.0"])
def test_minus_has_many_faces(text: str) -> None:
    assert same_number(text, "-5") and not same_number(text, "5")


def test_tuples_and_lists_stay_what_they_are(tmp_path: Path, monkeypatch: Any, stepwise: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_examples(Path("train.jsonl"), ["(1,2)", "3, 5", "1,234", "$1,234.50", "(1,234)"])
    Path("job.toml").write_text(
        'name = "x"\n[task]\ntype = "text"\nanswers = "number"\ntrain = "train.jsonl"\nvalidation = "train.jsonl"\n'
        "[schedule]\ntokens_per_stage = 1\nstage_steps = 9\n[training]\nbatch_size = 1\n"
    )
    shown = [line.partition("#### ")[2] for line in stepwise("data", "job.toml").out.splitlines()]
    assert shown == ["(1,2)", "3, 5", "1234", "$1234.50", "(1,234)"]
    said = " ".join(stepwise("doctor", "job.toml", "--store", "store").out.split())
    assert "3 answers of train are no number, the first at train.jsonl:1: right if the same is written" in said


def test_texts_are_the_same_but_for_how_wide_their_blanks_are(tmp_path: Path, monkeypatch: Any, stepwise: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_examples(Path("train.jsonl"), ["3 5"] * 64)
    write_examples(Path("valid.jsonl"), ["3 5", "3  5", "35", "3, 5"])
    model = {"type": "pretrained", "name": str(save_model(tmp_path / "model", byte_level(None)))}
    trained(tmp_path, model)
    assert exact_match(stepwise, tmp_path) == 0.5
