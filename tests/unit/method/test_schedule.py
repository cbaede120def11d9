"""When which token goes: the paper's schedule, the released script's, and removal smoothing."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, chain, islice, pairwise
from math import exp, floor, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.method.schedule import (
    Segment,
    linear_segments,
    reference_segments,
    smoothing_distribution,
)

COT_TOKENS = {4: 47, 5: 75, 7: 149, 9: 247, 11: 369}
"""Removable tokens of k x k digits in GPT-2's vocabulary."""
ENDLESS = 400
"""A CoT so long that no schedule below gets to its end."""


def removal_steps(segments: list[Segment]) -> list[int]:
    """The steps of the whole chain at which tokens go."""
    starts = accumulate((segment.steps for segment in segments), initial=0)
    return [start + r.step for start, segment in zip(starts, segments, strict=False) for r in segment.removals]


def removed_at(segments: list[Segment]) -> Iterator[int]:
    """The scheduled removed tokens at every optimizer step of the whole chain."""
    for segment in segments:
        removals = {removal.step: removal.removed_tokens for removal in segment.removals}
        removed = segment.removed_from
        for step in range(segment.steps):
            removed = removals.get(step, removed)
            yield removed


def ends(segments: list[Segment]) -> list[int]:
    return [segment.removed_to for segment in segments]


def released_script(n: int, delta: float, pretrain: int, beyond: float, total: int) -> list[int]:
    """Removed tokens at every batch of the released training loop until an epoch ends with nothing left."""
    interval, scheduled, counter, epoch, removed = round(n / delta), 0.0, 0, 0, [0]
    while removed[-1] < total or epoch < pretrain:
        for _ in range(n):
            if counter == interval or interval == 0:
                scheduled, counter = scheduled + 1, 0
            counter += epoch >= pretrain
            if scheduled >= beyond:
                scheduled = inf
            removed.append(int(min(scheduled, total)) if epoch >= pretrain else 0)
        epoch += 1
    return removed[1:]


@pytest.mark.parametrize(
    ("digits", "full_removal", "epoch"),
    [(4, 148_332, 5), (5, 236_700, 9), (7, 470_244, 18), (9, 779_532, 30), (11, 1_164_564, 46)],
)
def test_reference_paper_setting_removes_the_last_token_where_the_script_does(digits, full_removal, epoch):
    segments = reference_segments(COT_TOKENS[digits], 8, 25_250)
    assert removal_steps(segments)[:3] == [3156, 6312, 9468]
    assert ends(segments)[:4] == [8, 16, 24, 32]
    assert removal_steps(segments)[-1] == full_removal
    assert len(segments) == epoch + 1
    assert segments[epoch].removed_to == COT_TOKENS[digits] > segments[epoch - 1].removed_to


@pytest.mark.parametrize(
    ("epoch_steps", "delta", "expected_ends"),
    [
        (25_250, 16, [16, 32, 48]),
        (10, 3, [3, 6, 9, 13, 16]),
        (10, 8, [9, 19, 29]),
        (10, 25, [10, 20, 30]),
        (10, 0.5, [0, 0, 1, 1, 2, 2]),
        (7, 2, [1, 3, 5, 6]),
        (3, 2, [1, 2, 4, 5]),
        (100, 8, [8, 16, 24, 33, 41, 49]),
        (31, 8, [7, 15, 23, 30, 38, 46]),
        (32, 8, [7, 15, 23, 31, 39, 47]),
        (250, 8, [8, 16, 24, 32, 40, 48]),
        (1000, 8, [7, 15, 23, 31]),
        (2525, 8, [7, 15, 23, 31]),
    ],
)
def test_reference_epochs_end_as_in_the_script(epoch_steps, delta, expected_ends):
    segments = reference_segments(ENDLESS, delta, epoch_steps)
    assert ends(segments)[: len(expected_ends)] == expected_ends
    assert {segment.steps for segment in segments} == {epoch_steps}


def test_reference_pretraining_keeps_the_whole_cot_without_smoothing():
    segments = reference_segments(ENDLESS, 2, 10, pretrain_epochs=2)
    assert ends(segments)[:6] == [0, 0, 1, 3, 5, 7]
    assert removal_steps(segments)[0] == 25
    assert [segment.smoothing for segment in segments[:3]] == [False, False, True]


def test_reference_remove_all_beyond_takes_the_rest_in_one_batch():
    segments = reference_segments(ENDLESS, 2, 10, remove_all_beyond=5)
    assert ends(segments) == [1, 3, ENDLESS]
    assert list(pairwise(removed_at(segments)))[24] == (4, ENDLESS)


def test_reference_more_than_two_tokens_a_batch_removes_one_every_batch():
    assert list(islice(removed_at(reference_segments(ENDLESS, 25, 10)), 30)) == list(range(1, 31))


def test_reference_consolidation_adds_epochs_with_nothing_left():
    segments = reference_segments(16, 8, 100, consolidation_stages=3)
    assert ends(segments) == [8, 16, 16, 16, 16]
    assert not any(segment.removals for segment in segments[2:])


@given(
    n=st.integers(1, 40),
    delta=st.one_of(st.integers(1, 100), st.sampled_from([0.5, 1.5, 2.5, 7.25])),
    pretrain=st.integers(0, 3),
    beyond=st.one_of(st.just(None), st.integers(1, 30)),
    total=st.integers(1, 25),
)
def test_reference_any_setting_equals_the_script_batch_by_batch(n, delta, pretrain, beyond, total):
    segments = reference_segments(total, delta, n, pretrain_epochs=pretrain, remove_all_beyond=beyond)
    assert list(removed_at(segments)) == released_script(n, delta, pretrain, beyond or inf, total)


@pytest.mark.parametrize("method", [reference_segments, linear_segments])
def test_any_schedule_of_4x4_resets_the_optimizer_47_times(method):
    assert len(removal_steps(method(47, 8, 25_250))) == 47


@pytest.mark.parametrize(
    ("total", "delta", "steps"),
    [(47, 8, 1000), (47, 8, 25_250), (24, 1, 350), (10, 0.5, 7), (47, 2.5, 99), (30, 0.1, 3)],
)
def test_linear_removed_tokens_are_the_papers_at_every_step(total, delta, steps):
    removed = list(removed_at(linear_segments(total, delta, steps)))
    exact = Fraction(str(delta)) / steps
    assert removed == [min(total, exact.numerator * t // exact.denominator) for t in range(len(removed))]
    assert removed[-1] == total


@given(
    total=st.integers(1, 60),
    tenths=st.integers(1, 160),
    steps=st.integers(1, 120),
    pretrain=st.integers(0, 9),
    consolidation=st.integers(0, 2),
    beyond=st.one_of(st.just(None), st.integers(1, 70)),
)
def test_linear_any_setting_is_the_papers_formula_between_pretraining_and_consolidation(
    total, tenths, steps, pretrain, consolidation, beyond
):
    segments = linear_segments(
        total,
        tenths / 10,
        steps,
        pretrain_steps=pretrain,
        consolidation_stages=consolidation,
        remove_all_beyond=beyond,
    )
    removed = list(removed_at(segments))
    assert removed[:pretrain] == [0] * pretrain
    for t, tokens in enumerate(removed[pretrain:]):
        scheduled = tenths * t // (10 * steps)
        assert tokens == (total if scheduled >= min(total, beyond or inf) else scheduled)
    assert removed[-1] == total
    assert all(segment.steps > 0 for segment in segments)


@pytest.mark.parametrize(("total", "delta", "steps"), [(47, 8, 1000), (24, 1, 350), (10, 4, 33), (30, 2.5, 99)])
def test_linear_stages_begin_with_a_removal_and_end_on_whole_deltas(total, delta, steps):
    first, *others = linear_segments(total, delta, steps)
    assert first.removed_to == 0
    assert all(segment.removals[0].step == 0 for segment in others)
    assert ends(others) == [min(total, floor(delta * n)) for n in range(1, len(others) + 1)]
    assert [segment.removed_from for segment in others] == [0, *ends(others)[:-1]]


def test_linear_long_stages_last_their_configured_steps():
    segments = linear_segments(47, 8, 1000)
    assert [segment.steps for segment in segments] == [125, 1000, 1000, 1000, 1000, 1000, 875]


def test_linear_last_stage_trains_on_the_last_token_as_long_as_on_any_other():
    steps = removal_steps(segments := linear_segments(24, 2, 700))
    assert sum(segment.steps for segment in segments) - steps[-1] == 350


def test_linear_pretraining_is_one_stage_without_smoothing():
    segments = linear_segments(10, 1, 50, pretrain_steps=400)
    assert segments[0] == Segment(400, 0, smoothing=False)
    assert all(segment.smoothing for segment in segments[1:])
    assert removal_steps(segments)[0] == 450


def test_linear_consolidation_stages_have_the_configured_steps_and_nothing_left_to_remove():
    *_, before, first, second = linear_segments(10, 2, 50, consolidation_stages=2)
    assert before.removed_to == 10
    assert first == second == Segment(50, 10)


def test_linear_remove_all_beyond_ends_the_removal_at_that_token():
    segments = linear_segments(60, 1, 10, remove_all_beyond=39)
    assert ends(segments) == [*range(39), 60]
    assert removal_steps(segments)[-1] == 390


def test_linear_remove_all_beyond_a_longer_cot_changes_nothing():
    assert linear_segments(20, 1, 10, remove_all_beyond=39) == linear_segments(20, 1, 10)


@pytest.mark.parametrize(
    ("smoothing_lambda", "head", "tail"),
    [
        (4, [0.9816843611, 0.01798017626, 0.0003293184155, 6.031677179e-06], 0),
        (2, [0.8646647168, 0.1170196443, 0.01583688671, 0.002143289549], 0),
        (1, [0.6321205588, 0.2325441579, 0.08554821487, 0.03147142948], 0),
        (0.5, [0.3934693403, 0.2386512185, 0.144749281], 0),
        (0.1, [0.09516258196, 0.08610666496], 5.01747e-05),
        (0.01, [1 - exp(-0.01)], 0.371577),
        (inf, [1.0, 0.0, 0.0], 0),
    ],
)
def test_smoothing_probabilities_are_the_papers(smoothing_lambda, head, tail):
    probabilities = smoothing_distribution(smoothing_lambda)
    assert len(probabilities) == 100
    assert probabilities[: len(head)] == pytest.approx(head, rel=1e-8)
    assert probabilities[-1] == pytest.approx(tail, rel=1e-5, abs=1e-12)


def test_smoothing_mean_offset_at_lambda_4_is_two_percent_of_a_token():
    probabilities = smoothing_distribution(4)
    assert sum(probabilities[1:]) == pytest.approx(0.0183156, abs=1e-7)
    assert sum(i * p for i, p in enumerate(probabilities)) == pytest.approx(0.0186574, abs=1e-7)


def test_smoothing_any_lambda_is_a_distribution():
    for hundredths in chain(range(1, 1000), [5_000, 100_000]):
        probabilities = smoothing_distribution(hundredths / 100)
        assert sum(probabilities) == pytest.approx(1, abs=1e-12)
        assert min(probabilities) >= 0
