"""Multiplication in the paper's format, any number of digits, bit for bit the released data.

A line is ``a * b||partial products #### product`` with every number reversed (least significant
digit first). Partial product i is a·b_i·10^i, zero-padded to k1 + 1 + i digits; between the first
and the last, the running sum follows in brackets. All lines of a task have the same length, so a
split is one matrix of symbols.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import MultiplicationTask
from orchestrator.identity import non_default
from orchestrator.tasks.base import Example, Split

PAPER_EXAMPLES, PAPER_HELD_OUT = 810_000, 1_000
RELEASED_LEGACY_DIGITS = 11

Digits = NDArray[np.int64]
"""(n, k) matrix of decimal digits, least significant first."""


class Multiplication:
    """The examples of one k1 x k2 task."""

    symbols: tuple[str, ...] = (*"0123456789", "*", "+", "(", ")", "####")
    exact = True

    def __init__(self, config: MultiplicationTask) -> None:
        self.config = config
        self.k1, self.k2 = config.digits

    @property
    def cot_symbols(self) -> int:
        """Symbols of a CoT: digits of the partial products and running sums, ``+`` and brackets."""
        widths = [self.k1 + 1 + i for i in range(self.k2)]
        return sum(widths) + sum(w + 2 for w in widths[1:-1]) + self.k2 - 1

    @property
    def cot_pieces(self) -> int:
        """GPT-2 makes one token of a symbol, and one of the last blank (3k² + k - 5 for k x k, notes §1.2)."""
        return self.cot_symbols + 1

    @property
    def example_symbols(self) -> int:
        """Symbols of a whole example, with ``####`` and without separators."""
        return self.k1 + 1 + self.k2 + self.cot_symbols + 1 + self.k1 + self.k2

    @property
    def identity(self) -> dict[str, Any]:
        """The examples follow from the task's fields."""
        return non_default(self.config)

    def size(self, split: Split) -> int:
        """Number of examples of a split, without generating the text."""
        space = 81 * 10 ** (self.k1 + self.k2 - 2)
        if split != "train":
            return self._held_out(space)
        if space <= PAPER_EXAMPLES:
            pairs = _whole_space_train_pairs(self.k1, self.k2)
            return min(pairs, self.config.train_examples or pairs)
        return min(PAPER_EXAMPLES - 2 * PAPER_HELD_OUT, self.config.train_examples or PAPER_EXAMPLES)

    def examples(self, split: Split) -> Iterator[Example]:
        """The examples of a split in their fixed order."""
        a, b = self._factors(split)
        for begin in range(0, len(a), 50_000):
            yield from self._format(a[begin : begin + 50_000], b[begin : begin + 50_000])

    def place(self, split: Split, row: int) -> str:
        return f"{split} example {row + 1}"

    def is_correct(self, predicted: str, answer: str) -> bool:
        """Exact match of the reversed digits (paper §4.3), however they stand apart."""
        return "".join(predicted.split()) == "".join(answer.split())

    def _held_out(self, space: int) -> int:
        return PAPER_HELD_OUT if space >= 20 * PAPER_HELD_OUT else space // 20

    def _factors(self, split: Split) -> tuple[Digits, Digits]:
        space = 81 * 10 ** (self.k1 + self.k2 - 2)
        if space <= PAPER_EXAMPLES:
            a, b = self._whole_space(split)
        elif max(self.k1, self.k2) >= 10:
            a, b = self._legacy_pairs(split)
        else:
            a, b = self._paper_pairs(split)
        if split == "train":
            a, b = a[: self.config.train_examples], b[: self.config.train_examples]
        return a, b

    def _paper_pairs(self, split: Split) -> tuple[Digits, Digits]:
        """810,000 distinct pairs of the space, as released for 4, 5, 7 and 9 digits."""
        span_a, span_b = 9 * 10 ** (self.k1 - 1), 9 * 10 ** (self.k2 - 1)
        ids = np.random.default_rng(1234).choice(span_a * span_b, size=PAPER_EXAMPLES, replace=False)
        rows = ids[_paper_rows(split)]
        return (
            _digits(10 ** (self.k1 - 1) + rows % span_a, self.k1),
            _digits(10 ** (self.k2 - 1) + rows // span_a, self.k2),
        )

    def _legacy_pairs(self, split: Split) -> tuple[Digits, Digits]:
        """The older generator of the released 11x11 file: it drew 10x10 first, from the same stream."""
        random = np.random.RandomState(1234)
        sizes = [(10, 10), (11, 11)] if self.k1 == self.k2 == RELEASED_LEGACY_DIGITS else [(self.k1, self.k2)]
        for k1, k2 in sizes:
            pairs = np.hstack([_legacy_number(random, k) for k in (k1, k2)])
        rows = np.ascontiguousarray(pairs.astype(np.uint8)).view(f"V{pairs.shape[1]}").ravel()
        _, first = np.unique(rows, return_index=True)
        pairs = pairs[np.sort(first)][_paper_rows(split)]
        return pairs[:, : self.k1][:, ::-1], pairs[:, self.k1 :][:, ::-1]

    def _whole_space(self, split: Split) -> tuple[Digits, Digits]:
        """Every pair once. a·b and b·a count as one pair: never one in training, the other held out."""
        span_a, span_b = 9 * 10 ** (self.k1 - 1), 9 * 10 ** (self.k2 - 1)
        ids = np.random.default_rng(1234).permutation(span_a * span_b)
        a, b = ids % span_a, ids // span_a
        held_out = self._held_out(span_a * span_b)
        own, other = (slice(held_out), slice(held_out, 2 * held_out))
        if split == "test":
            own, other = other, own
        if split != "train":
            return _digits(10 ** (self.k1 - 1) + a[own], self.k1), _digits(10 ** (self.k2 - 1) + b[own], self.k2)
        kept = np.ones(len(ids), bool)
        kept[: 2 * held_out] = False
        if self.k1 == self.k2:
            kept[np.isin(ids, (a * span_a + b)[: 2 * held_out])] = False
        return _digits(10 ** (self.k1 - 1) + a[kept], self.k1), _digits(10 ** (self.k2 - 1) + b[kept], self.k2)

    def _format(self, a: Digits, b: Digits) -> Iterator[Example]:
        question = np.hstack([_text(a), _symbol(a, "*"), _text(b)])
        parts, running = [], np.zeros((len(a), 0), np.int64)
        for i in range(self.k2):
            width = self.k1 + 1 + i
            product = _carried(_widened(np.hstack([np.zeros((len(a), i), np.int64), a * b[:, i : i + 1]]), width))
            running = _carried(_widened(running, width) + product)
            parts += [_symbol(a, "+"), _text(product)]
            if 0 < i < self.k2 - 1:
                parts += [_symbol(a, "("), _text(running), _symbol(a, ")")]
        answer = _text(_carried(_widened(running, self.k1 + self.k2)))
        yield from map(Example, _joined(question), _joined(np.hstack(parts[1:])), _joined(answer))


@cache
def _whole_space_train_pairs(k1: int, k2: int) -> int:
    """Counted once: a plan asks for every trial."""
    return len(Multiplication(MultiplicationTask(digits=(k1, k2)))._whole_space("train")[0])


def _paper_rows(split: Split) -> slice:
    train = PAPER_EXAMPLES - 2 * PAPER_HELD_OUT
    return {
        "train": slice(train),
        "validation": slice(train, train + PAPER_HELD_OUT),
        "test": slice(train + PAPER_HELD_OUT, PAPER_EXAMPLES),
    }[split]


def _legacy_number(random: np.random.RandomState, k: int) -> Digits:
    """891,000 numbers of k digits, most significant digit first."""
    n = 891_000
    return np.hstack([random.randint(1, 10, (n, 1)), random.randint(0, 10, (n, k - 1))])


def _digits(numbers: NDArray[np.int64], k: int) -> Digits:
    return numbers[:, None] // 10 ** np.arange(k) % 10


def _widened(digits: Digits, width: int) -> Digits:
    return np.pad(digits, ((0, 0), (0, width - digits.shape[1])))


def _carried(digits: Digits) -> Digits:
    """Columns reduced to 0..9 with carries moved up. The last column must be wide enough."""
    carried = digits.copy()
    for column in range(carried.shape[1] - 1):
        carried[:, column + 1] += carried[:, column] // 10
        carried[:, column] %= 10
    return carried


def _text(digits: Digits) -> NDArray[np.uint8]:
    return (digits + ord("0")).astype(np.uint8)


def _symbol(like: Digits, symbol: str) -> NDArray[np.uint8]:
    return np.full((len(like), 1), ord(symbol), np.uint8)


def _joined(symbols: NDArray[np.uint8]) -> list[str]:
    """Rows of symbols as text, joined by blanks."""
    spaced = np.full((len(symbols), 2 * symbols.shape[1]), ord(" "), np.uint8)
    spaced[:, ::2] = symbols
    text, row = spaced.tobytes().decode("ascii"), spaced.shape[1]
    return [text[begin : begin + row - 1] for begin in range(0, len(text), row)]
