"""The values that a multiplication's CoT writes, and ĉ_k of Bai et al."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from orchestrator.config import MultiplicationTask
from orchestrator.method.probing.intermediates import intermediates
from orchestrator.tasks import make_task


@pytest.mark.parametrize(
    ("question", "carries"),
    [
        ("1 3 3 8 * 5 1 0 5", [5, 16, 19, 49, 27, 17, 41, 4]),
        ("9 1 7 3 * 9 4 3 3", [81, 53, 99, 94, 45, 34, 12, 1]),
    ],
)
def test_carries_are_those_of_the_paper(question: str, carries: list[int]) -> None:
    assert [int(t.values[0]) for t in intermediates([question]) if t.family == "carry"] == carries


@pytest.mark.parametrize("digits", [(3, 2), (4, 4), (2, 3), (11, 11)])
def test_every_digit_of_the_cot_and_of_the_answer_follows_from_them(digits: tuple[int, int]) -> None:
    if digits == (11, 11):
        question, cot = " * ".join([" ".join("9" * 11)] * 2), ""
        examples = [(question, cot, " ".join(reversed(str(int("9" * 11) ** 2))))]
    else:
        examples = [tuple(e) for e in islice(make_task(MultiplicationTask(digits=digits)).examples("test"), 20)]
    found = intermediates(question for question, _, _ in examples)
    for row, (_, cot, answer) in enumerate(examples):
        written = [part.split() for part in cot.replace(")", "+").replace("(", "+").split("+") if part.strip()]
        for name in {t.name.split(",")[0] for t in found if t.is_digit} if cot else ():
            value = [str(t.values[row]) for t in found if t.name.startswith(f"{name},")]
            assert any(part[-len(value) :] == value for part in written)
        assert [str(t.values[row] % 10) for t in found if not t.is_digit] == answer.split()


def test_running_sums_are_those_between_the_first_and_the_last() -> None:
    assert not [t for t in intermediates(["3 2 1 * 6 5"]) if t.family == "running sum"]
    found = [t for t in intermediates(["3 2 1 * 6 5 4"]) if t.family == "running sum"]
    assert np.stack([t.values for t in found], 1).tolist() == [[8, 8, 8, 6, 0]]
