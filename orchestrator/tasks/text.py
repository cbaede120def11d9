"""Examples that are read, not generated: your own data, and GSM8K.

Unlike the multiplication task, CoTs have different lengths. What the schedule calls the number of
removable tokens is the length of the longest CoT of both splits; an example loses what is
scheduled or its whole CoT, whichever is less.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from orchestrator.config import Gsm8kTask, TextTask
from orchestrator.errors import InputError, Problem
from orchestrator.identity import canonical_json
from orchestrator.tasks.base import Example, Split
from orchestrator.tasks.sources import ANSWER_MARK, Raw, read, stamp

EQUATION = re.compile(r"<<[^<>]*>>")
_SYLLABIC = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Kana, Chinese characters and Hangul, which stand without blanks."""
PIECE = re.compile(rf"\d{{1,3}}|[{_SYLLABIC}]|[^\W\d{_SYLLABIC}]+|[^\w\s]+")
"""What a subword tokenizer makes about one token of."""
_GROUPS = r"\d{1,3}(?P<by>[, '])\d{3}(?:(?P=by)\d{3})*"
NUMBER = re.compile(rf"(?:[-+]?\$ ?|\$ ?[-+]|[-+])?(?P<digits>(?:{_GROUPS}|\d+)(?:\.\d*)?|\.\d+)(?: ?\$\.?)?")
"""One number in the usual writings, once its characters are those of ``_plain``."""
_KINDS = {"Sc": "$", "Zs": " "}
_SIGNS = {"−": "-", "－": "-", "＋": "+", "，": ",", "．": ".", "’": "'"}
THOUSANDS = re.compile(r"(?<![\d.,(\[{])\d{1,3}(?:,\d{3})+(?!,?\d)")
"""A number with commas between its thousands; in brackets they may be those of a list."""


class TextExamples:
    """The examples of a task that a user's files or a dataset hold."""

    def __init__(self, config: TextTask | Gsm8kTask) -> None:
        self.config = config
        self.numbers = isinstance(config, Gsm8kTask) or config.answers == "number"
        self.exact = not self.numbers

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Every word of the examples, for a model from scratch; those of validation too, so that none is unknown."""
        words = {
            word
            for split in ("train", "validation")
            for example in self.examples(split)
            for text in example
            for word in text.split()
        }
        return (*sorted(words), ANSWER_MARK)

    @property
    def cot_symbols(self) -> int:
        return max(facts.cot_symbols for facts in self._measured)

    @property
    def cot_pieces(self) -> int:
        return max(facts.cot_pieces for facts in self._measured)

    @property
    def example_symbols(self) -> int:
        return max(facts.example_symbols for facts in self._measured)

    @property
    def identity(self) -> dict[str, Any]:
        """The examples themselves and how answers are judged, wherever and in whatever format they lie."""
        train, validation = self._measured
        judged = {"answers": "number"} if self.numbers else {}
        return {"type": "text", **judged, "train": train.sha256, "validation": validation.sha256}

    def size(self, split: Split) -> int:
        return self._facts(split).size

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split in their order. Raises ``InputError`` with file and line."""
        for raw in self._raw(split):
            yield _example(raw, self.config, numbers=self.numbers)

    def place(self, split: Split, row: int) -> str:
        """The file and line of an example."""
        return next(islice(self._raw(split), row, None)).place

    def is_correct(self, predicted: str, answer: str) -> bool:
        """The same text but for how wide its blanks are, or the same number where answers are numbers."""
        if self.numbers and same_number(predicted, answer):
            return True
        return predicted.split() == answer.split()

    def _raw(self, split: Split) -> Iterator[Raw]:
        return islice(read(self.config, split), self.config.train_examples if split == "train" else None)

    @property
    def _measured(self) -> tuple[_Facts, _Facts]:
        """Measure the splits that a run reads."""
        return self._facts("train"), self._facts("validation")

    def _facts(self, split: Split) -> _Facts:
        return _facts(self.config, split, stamp(self.config, split))


def same_number(left: str, right: str) -> bool:
    """Return whether two texts are numbers of one value: ``1234``, ``1,234.00``, ``1 234`` and ``$1’234.`` are."""
    a, b = number(left), number(right)
    return a is not None and a == b


def number(text: str) -> Decimal | None:
    """The one number that a text is; None for a tuple, a list, a range or anything else."""
    plain = "".join(map(_plain, text.strip()))
    found = NUMBER.fullmatch(plain)
    if not found:
        return None
    value = Decimal(re.sub("[, ']", "", found["digits"]))
    return -value if "-" in plain else value


def _plain(character: str) -> str:
    """One writing for many: ASCII for digits and signs of full width, a blank for any, ``$`` for every currency."""
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return _KINDS.get(kind) or _SIGNS.get(character, character)


@dataclass(frozen=True)
class _Facts:
    """What one pass over a split says."""

    size: int
    sha256: str
    cot_symbols: int
    cot_pieces: int
    example_symbols: int


@lru_cache(maxsize=32)
def _facts(config: TextTask | Gsm8kTask, split: Split, stamp: tuple[int, int] | None) -> _Facts:
    """Read once for a job, although a plan asks often. ``stamp`` tells a changed file."""
    sha256, size, cot, pieces, whole = hashlib.sha256(), 0, 0, 0, 0
    for example in TextExamples(config).examples(split):
        sha256.update(canonical_json(example).encode())
        size += 1
        cot = max(cot, len(example.cot.split()))
        if len(example.cot) > pieces:
            pieces = max(pieces, len(PIECE.findall(example.cot)))
        whole = max(whole, 1 + sum(len(text.split()) for text in example))
    if not size:
        raise InputError(Problem("DAT008", getattr(config, split), "holds no example", f"see task.{split}"))
    return _Facts(size, sha256.hexdigest(), cot, pieces, whole)


def _example(raw: Raw, config: TextTask | Gsm8kTask, *, numbers: bool) -> Example:
    cot, answer = raw.cot, raw.answer
    if cot is None:
        cot, mark, answer = answer.partition(ANSWER_MARK)
        if not mark:
            raise InputError(Problem("DAT005", raw.place, f"no {ANSWER_MARK!r}", "write `cot #### answer`"))
    if isinstance(config, Gsm8kTask) and config.cot == "equations":
        cot = " ".join(EQUATION.findall(cot))
    if numbers:
        answer = THOUSANDS.sub(lambda grouped: grouped[0].replace(",", ""), answer)
    example = Example(raw.question.strip(), cot.strip(), answer.strip())
    _check(example, raw.place, in_columns=raw.cot is not None)
    return example


def _check(example: Example, place: str, *, in_columns: bool) -> None:
    """``in_columns``: whether the answer had a column of its own."""
    for name, text in example._asdict().items():
        if ANSWER_MARK in text:
            found = f"the {name} holds {ANSWER_MARK!r}, which stands before every answer"
            published = 'remove it; a column that holds `steps #### answer`, as GSM8K\'s does, is for type = "gsm8k"'
            raise InputError(Problem("DAT012", place, found, published if in_columns else "remove it"))
        if not text and name != "cot":
            raise InputError(Problem("DAT007", place, f"the {name} is empty", "remove the example or complete it"))
        if "\0" in text:
            raise InputError(Problem("DAT004", place, f"the {name} holds a NUL", "save it as text"))
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError(Problem("DAT004", place, f"the {name} holds half a character", "save it as UTF-8"))
