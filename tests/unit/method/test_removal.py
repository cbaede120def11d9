"""Cutting a batch: the released tokens' cut table, any batch against a cut by hand, the offsets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.method.removal import IGNORED, Batch, CutBatch, cut, draw_removed

QUESTION = "767 718 860 362 1635 352 718 513 718 220"
COT = (
    "767 718 860 362 657 1343 657 362 657 807 767 352 357 767 807 860 657 807 352 1267 1343 657 657 352 657 860 "
    "807 657 357 767 807 657 352 767 657 352 1267 1343 657 657 657 362 657 807 767 352 220"
)
ANSWER = "1303 21017 767 807 657 513 767 807 807 352 220"
E = 50256
BLANK = 220


@dataclass(frozen=True)
class Row:
    """One example as token ids, without its separators."""

    question: list[int]
    cot: list[int]
    answer: list[int]

    @property
    def tokens(self) -> list[int]:
        return [*self.question, E, *self.cot, E, *self.answer, E]

    @property
    def separator(self) -> int:
        """Position of the first separator."""
        return len(self.question)


def ids(text: str) -> list[int]:
    return [int(token) for token in text.split()]


GPT2_4X4 = Row(ids(QUESTION), ids(COT), ids(ANSWER))
"""``7 6 9 2 * 1 6 3 6``, the first line of the released 4x4 test file, in GPT-2's tokens."""


def batch_of(rows: list[Row]) -> Batch:
    longest = max(len(row.tokens) for row in rows)
    return Batch(
        torch.tensor([row.tokens + [0] * (longest - len(row.tokens)) for row in rows]),
        torch.tensor([len(row.tokens) for row in rows]),
        torch.tensor([row.separator + 1 for row in rows]),
        torch.tensor([row.separator + 1 + len(row.cot) for row in rows]),
    )


def cut_one(removed: int, side: str = "left", **options: bool) -> CutBatch:
    return cut(batch_of([GPT2_4X4]), torch.tensor([removed]), side, **options)


def learnt(batch: CutBatch) -> list[int]:
    return [label for label in batch.labels_BK[0].tolist() if label != IGNORED]


def cut_by_hand(row: Row, removed: int, side: str, keep_position: bool) -> tuple[list[int], list[int], list[int]]:
    """Tokens, labels and positions of one example."""
    removed = min(removed, len(row.cot))
    cot = row.cot[removed:] if side == "left" else row.cot[: len(row.cot) - removed]
    left = [*cot, E, *row.answer, E]
    shift = removed if keep_position else 0
    positions = [*range(len(row.question)), *(len(row.question) + shift + i for i in range(len(left) + 1))]
    return [*row.question, E, *left], [IGNORED] * (len(row.question) + 1) + left, positions


def test_cut_released_row_has_its_separators_where_the_notes_say():
    assert [i for i, token in enumerate(GPT2_4X4.tokens) if token == E] == [10, 58, 70]


@pytest.mark.parametrize(
    ("removed", "length", "loss_tokens", "first"),
    [
        (0, 71, 60, "767 718 860 362 657 1343 657 362"),
        (1, 70, 59, "718 860 362 657 1343"),
        (5, 66, 55, "1343 657 362 657 807 767 352 357"),
        (6, 65, 54, "657 362 657 807 767 352 357"),
        (46, 25, 14, f"{BLANK} {E} {ANSWER} {E}"),
        (47, 24, 13, f"{E} {ANSWER} {E}"),
        (60, 24, 13, f"{E} {ANSWER} {E}"),
    ],
)
def test_cut_left_of_the_released_row_is_the_scripts(removed, length, loss_tokens, first):
    batch = cut_one(removed)
    assert batch.tokens_BK.shape == (1, length)
    assert batch.tokens_BK[0, :11].tolist() == [*GPT2_4X4.question, E]
    assert len(learnt(batch)) == loss_tokens
    assert learnt(batch)[: len(ids(first))] == ids(first)


@pytest.mark.parametrize(
    ("removed", "length", "loss_tokens", "last_of_cot"),
    [(1, 70, 59, "657 362 657 807 767 352"), (5, 66, 55, "1343 657 657 657 362"), (47, 24, 13, "")],
)
def test_cut_right_of_the_released_row_is_the_scripts(removed, length, loss_tokens, last_of_cot):
    batch = cut_one(removed, "right")
    end = f"{last_of_cot} {E} {ANSWER} {E}"
    assert batch.tokens_BK.shape == (1, length)
    assert len(learnt(batch)) == loss_tokens
    assert learnt(batch)[-len(ids(end)) :] == ids(end)


def test_cut_keeping_positions_moves_the_separator_next_to_what_remains():
    assert cut_one(5, keep_position=True).positions_BK[0].tolist() == [*range(10), *range(15, 71)]


def test_cut_without_keeping_positions_counts_through():
    assert cut_one(5).positions_BK[0].tolist() == list(range(66))


tokens = st.lists(st.integers(1, 99), max_size=8)
rows_to_cut = st.lists(st.tuples(st.builds(Row, tokens, tokens, tokens), st.integers(0, 12)), min_size=1, max_size=6)


@given(rows_to_cut, st.sampled_from(["left", "right"]), st.booleans())
def test_cut_of_any_batch_equals_cutting_each_example_by_hand(
    cuts: list[tuple[Row, int]], side: str, keep_position: bool
):
    rows, removed = zip(*cuts, strict=True)
    batch = cut(batch_of(list(rows)), torch.tensor(removed), side, keep_position)
    by_hand = [cut_by_hand(row, r, side, keep_position) for row, r in cuts]
    lengths = [len(row_tokens) for row_tokens, _, _ in by_hand]
    assert batch.lengths_B.tolist() == lengths
    assert batch.tokens_BK.shape == (len(rows), max(lengths))
    assert unpadded(batch.tokens_BK, lengths) == [row_tokens for row_tokens, _, _ in by_hand]
    assert unpadded(batch.labels_BK, lengths) == [labels for _, labels, _ in by_hand]
    assert unpadded(batch.positions_BK, lengths) == [positions for _, _, positions in by_hand]
    assert padding(batch.labels_BK, lengths) <= {IGNORED}
    assert padding(batch.tokens_BK, lengths) <= {0}
    assert batch.positions_BK.max() < max(len(row.tokens) for row in rows)


def unpadded(matrix: torch.Tensor, lengths: Iterable[int]) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(matrix, lengths, strict=True)]


def padding(matrix: torch.Tensor, lengths: Iterable[int]) -> set[int]:
    return {value for row, length in zip(matrix, lengths, strict=True) for value in row[length:].tolist()}


def test_draw_removed_at_lambda_4_removes_more_from_two_percent():
    removed = draw_removed(10, 4.0, 200_000, torch.Generator().manual_seed(0))
    assert removed.min() == 10
    assert (removed > 10).float().mean().item() == pytest.approx(0.0183156, abs=0.001)
    assert removed.float().mean().item() == pytest.approx(10.0186574, abs=0.001)


def test_draw_removed_at_lambda_inf_removes_the_scheduled_tokens():
    assert set(draw_removed(7, inf, 1000, torch.Generator().manual_seed(0)).tolist()) == {7}


def test_draw_removed_at_a_tiny_lambda_puts_a_third_on_the_last_bin():
    removed = draw_removed(0, 0.01, 100_000, torch.Generator().manual_seed(0))
    assert removed.max() == 99
    assert (removed == 99).float().mean().item() == pytest.approx(0.371577, abs=0.005)


def test_draw_removed_is_a_function_of_the_generators_seed():
    drawn = [draw_removed(3, 1.0, 500, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
