"""The multiplication task: the paper's lines and data sets bit for bit, and clean splits of small spaces."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import MultiplicationTask
from orchestrator.tasks import Example, Split, make_task
from orchestrator.tasks.multiplication import Multiplication

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def task(k1: int, k2: int, **fields: int) -> Multiplication:
    return make_task(MultiplicationTask(digits=(k1, k2), **fields))


@cache
def lines(k1: int, k2: int, split: Split) -> list[str]:
    return [example.line for example in task(k1, k2).examples(split)]


def example_of(a: int, b: int) -> Example:
    """The task's example for one pair, wherever it lies in the data."""
    digits = [np.array([[int(digit) for digit in reversed(str(n))]]) for n in (a, b)]
    return next(task(len(str(a)), len(str(b)))._format(*digits))


def number(digits: str) -> int:
    """``2 1`` is 12."""
    return int("".join(reversed(digits.split())))


def factors(line: str) -> tuple[int, int]:
    a, b = line.split("||")[0].split("*")
    return number(a), number(b)


@pytest.mark.parametrize(
    ("a", "b", "line"),
    [
        (12, 34, "2 1 * 4 3||8 4 0 + 0 6 3 0 #### 8 0 4 0"),
        (123, 456, "3 2 1 * 6 5 4||8 3 7 0 + 0 5 1 6 0 ( 8 8 8 6 0 ) + 0 0 2 9 4 0 #### 8 8 0 6 5 0"),
        (
            8331,
            5015,
            "1 3 3 8 * 5 1 0 5||5 5 6 1 4 + 0 1 3 3 8 0 ( 5 6 9 4 2 1 ) + 0 0 0 0 0 0 0 ( 5 6 9 4 2 1 0 )"
            " + 0 0 0 5 5 6 1 4 #### 5 6 9 9 7 7 1 4",
        ),
        (
            3719,
            3349,
            "9 1 7 3 * 9 4 3 3||1 7 4 3 3 + 0 6 7 8 4 1 ( 1 3 2 2 8 1 ) + 0 0 7 5 1 1 1 ( 1 3 9 7 9 2 1 )"
            " + 0 0 0 7 5 1 1 1 #### 1 3 9 4 5 4 2 1",
        ),
        (
            1000,
            1000,
            "0 0 0 1 * 0 0 0 1||0 0 0 0 0 + 0 0 0 0 0 0 ( 0 0 0 0 0 0 ) + 0 0 0 0 0 0 0 ( 0 0 0 0 0 0 0 )"
            " + 0 0 0 0 0 0 1 0 #### 0 0 0 0 0 0 1 0",
        ),
        (
            9999,
            9999,
            "9 9 9 9 * 9 9 9 9||1 9 9 9 8 + 0 1 9 9 9 8 ( 1 0 9 9 8 9 ) + 0 0 1 9 9 9 8 ( 1 0 0 9 8 9 9 )"
            " + 0 0 0 1 9 9 9 8 #### 1 0 0 0 8 9 9 9",
        ),
    ],
)
def test_line_of_a_pair_is_the_released_format(a, b, line):
    assert example_of(a, b).line == line


@pytest.mark.parametrize("k", [4, 5, 7, 9, 11])
def test_validation_lines_are_the_released_file(k, released_data):
    released = (released_data / f"mult_{k}x{k}" / "valid.txt").read_text().splitlines()
    assert lines(k, k, "validation")[:200] == released[:200]
    assert len(lines(k, k, "validation")) == 1000


def test_4x4_training_file_through_the_command_line_has_the_published_hash(stepwise, repository):
    written = stepwise("data", repository / "jobs/paper/mult_4x4.toml", "--split", "train").out.encode()
    published = "9857d1bba98bafb54da6977d98255656c8bddaa96dae69a4fe67a14eafdeb9fe"
    assert hashlib.sha256(written).hexdigest() == published
    assert factors(written[:200].decode().splitlines()[0]) == (8331, 5015)
    assert factors(written[-200:].decode().splitlines()[-1]) == (1946, 1179)


@pytest.mark.parametrize(
    ("k", "train", "validation", "test", "last_test"),
    [
        (4, (8331, 5015), (2365, 4347), (2967, 6361), (9511, 2393)),
        (5, (66966, 52025), (11453, 56412), (38049, 10241), (96496, 56215)),
        (7, (3122048, 6532050), (7571667, 7048798), (4357427, 1533293), (9549288, 6752030)),
        (
            9,
            (126435988, 462800242),
            (105927453, 352546367),
            (756504318, 623099919),
            (672972884, 228494806),
        ),
    ],
)
def test_released_sizes_begin_and_end_with_the_released_pairs(k, train, validation, test, last_test):
    first = next(task(k, k, train_examples=1).examples("train"))
    assert factors(first.line) == train
    assert factors(lines(k, k, "validation")[0]) == validation
    assert factors(lines(k, k, "test")[0]) == test
    assert factors(lines(k, k, "test")[-1]) == last_test


@pytest.mark.parametrize(("k", "length"), [(4, 132), (5, 196), (7, 360), (9, 572), (11, 832)])
def test_lines_of_a_released_size_have_the_released_length(k, length):
    assert {len(line) + 1 for line in lines(k, k, "validation")} == {length}


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20])
def test_cot_of_square_tasks_has_the_papers_number_of_symbols(k):
    assert task(k, k).cot_symbols == 3 * k * k + k - 6


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_example_of_any_pair_has_right_partial_products_sums_and_product(a, b):
    example = example_of(a, b)
    digits = [int(digit) for digit in reversed(str(b))]
    products = [a * digit * 10**i for i, digit in enumerate(digits)]
    written = [part.replace(")", "").split("(") for part in example.cot.split(" + ")]
    assert [number(part[0]) for part in written] == products
    assert [number(part[1]) for part in written if part[1:]] == [
        sum(products[: i + 1]) for i in range(1, len(digits) - 1)
    ]
    assert number(example.answer) == a * b
    assert factors(example.line) == (a, b)


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_example_of_any_size_has_the_symbols_that_the_task_counts(k1, k2, random):
    a, b = (random.randrange(10 ** (k - 1), 10**k) for k in (k1, k2))
    example = example_of(a, b)
    assert len(example.cot.split()) == task(k1, k2).cot_symbols
    assert len(example.line.replace("||", " ").split()) == task(k1, k2).example_symbols
    assert set(example.line.replace("||", " ").split()) <= set(Multiplication.symbols)


@pytest.mark.parametrize("digits", [(1, 1), (2, 1), (2, 2), (3, 2), (2, 3)])
def test_small_space_never_shares_a_pair_between_splits(digits):
    pairs = {split: [factors(line) for line in lines(*digits, split)] for split in SPLITS}
    for split in SPLITS:
        assert len(set(pairs[split])) == len(pairs[split]) == task(*digits).size(split) > 0
    in_training = {pair for a, b in pairs["train"] for pair in ((a, b), (b, a))}
    assert in_training.isdisjoint(pairs["validation"] + pairs["test"])
    assert set(pairs["validation"]).isdisjoint(pairs["test"])


def test_3x3_uses_the_whole_space_without_sharing_a_pair():
    def ids(split: Split, swapped: bool = False) -> np.ndarray:
        a, b = (digits @ [1, 10, 100] for digits in task(3, 3)._factors(split))
        return (b if swapped else a) * 1000 + (a if swapped else b)

    train, validation, test = map(ids, SPLITS)
    held_out = np.concatenate([validation, test])
    assert len(validation) == len(test) == 1000
    assert not np.isin(held_out, np.concatenate([train, ids("train", swapped=True)])).any()
    assert not np.isin(validation, test).any()
    assert len(np.unique(train)) == len(train) == task(3, 3).size("train")
    assert len(train) > 810_000 - 2 * 2 * 1000 - 1


@pytest.mark.parametrize("digits", [(1, 1), (2, 2), (3, 2), (2, 3)])
def test_every_product_of_a_small_space_is_right(digits):
    for split in SPLITS:
        for line in lines(*digits, split):
            a, b = factors(line)
            assert number(line.split("####")[1]) == a * b


@pytest.mark.parametrize("digits", [(2, 2), (3, 2), (3, 3), (4, 4), (2, 5)])
def test_train_examples_takes_the_first_ones(digits):
    few = task(*digits, train_examples=50)
    assert few.size("train") == 50
    assert list(few.examples("train")) == [
        example for example, _ in zip(task(*digits).examples("train"), range(50), strict=False)
    ]
    assert few.size("validation") == task(*digits).size("validation")


@pytest.mark.parametrize("digits", [(4, 4), (5, 2), (9, 9)])
def test_size_of_a_large_space_is_the_papers(digits):
    assert [task(*digits).size(split) for split in SPLITS] == [808_000, 1000, 1000]


@pytest.mark.parametrize(("predicted", "right"), [("8040", True), ("804", False), ("08040", False), ("", False)])
def test_answer_is_right_only_if_every_digit_is(predicted, right):
    assert task(2, 2).is_correct(predicted, "8040") is right
