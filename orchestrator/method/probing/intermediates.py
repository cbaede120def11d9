"""The intermediate results of a multiplication: the values that a CoT writes, and Bai et al.'s ĉ_k."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Family = Literal["partial product", "running sum", "carry"]


@dataclass(frozen=True)
class Intermediate:
    """One value of every example: a decimal digit, or ĉ_k, which is a number."""

    name: str
    family: Family
    values: NDArray[np.int64]

    @property
    def is_digit(self) -> bool:
        return self.family != "carry"


def intermediates(questions: Iterable[str]) -> tuple[Intermediate, ...]:
    """The removed intermediate results of products, from questions as ``3 2 1 * 6 5``.

    Digit j of the partial product a·b_i, of the running sum up to b_i where the CoT writes it (between the first
    and the last), and ĉ_k = Σ_{i+j=k} a_i b_j + ⌊ĉ_{k-1} / 10⌋ (Bai et al. 2025): the answer's digit k is its last
    digit. Digits count from the least significant one.
    """
    factors = [question.split(" * ") for question in questions]
    a, b = (np.array([pair[side].split() for pair in factors]).astype(np.int64) for side in (0, 1))
    return (*_products(a, b), *_sums(a, b), *_carries(a, b))


def _products(a: NDArray[np.int64], b: NDArray[np.int64]) -> Iterator[Intermediate]:
    for i in range(b.shape[1]):
        yield from _digits(f"a·b{i}", "partial product", _number(a) * b[:, i], a.shape[1] + 1)


def _sums(a: NDArray[np.int64], b: NDArray[np.int64]) -> Iterator[Intermediate]:
    for i in range(1, b.shape[1] - 1):
        total = _number(a) * _number(b[:, : i + 1])
        yield from _digits(f"sum to b{i}", "running sum", total, a.shape[1] + 1 + i)


def _carries(a: NDArray[np.int64], b: NDArray[np.int64]) -> Iterator[Intermediate]:
    carried = np.zeros(len(a), np.int64)
    for k in range(a.shape[1] + b.shape[1]):
        column = sum(a[:, i] * b[:, k - i] for i in range(a.shape[1]) if 0 <= k - i < b.shape[1])
        carried = column + carried // 10
        yield Intermediate(f"ĉ{k}", "carry", carried)


def _number(digits: NDArray[np.int64]) -> NDArray[np.object_]:
    """As Python integers, which have room for any product."""
    return digits.astype(object) @ np.array([10**i for i in range(digits.shape[1])], object)


def _digits(name: str, family: Family, numbers: NDArray[np.object_], width: int) -> Iterator[Intermediate]:
    for j in range(width):
        yield Intermediate(f"{name}, digit {j}", family, (numbers // 10**j % 10).astype(np.int64))
