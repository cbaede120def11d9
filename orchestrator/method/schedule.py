"""When which CoT token goes: the paper's schedule and the released script's, as pure numbers.

The words of the paper (§3): Δ tokens are removed per stage of T optimizer steps, so after step t
of the removal s(t) = floor(Δ t / T) tokens are gone. Three things the reference code leaves in the
dark, as they are here: inside a stage tokens are removed one by one and evenly; AdamW is rebuilt
at every removal; a stage boundary of the linear schedule lies just before a removal, so that each
stage ends on a number of removed tokens it has trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import exp, isinf


@dataclass(frozen=True)
class Removal:
    """From ``step`` of its stage on (0-based), ``removed_tokens`` CoT tokens are scheduled for removal."""

    step: int
    removed_tokens: int


@dataclass(frozen=True)
class Segment:
    """A stage's share of the schedule: ``steps`` optimizer steps and the removals inside them."""

    steps: int
    removed_from: int
    removals: tuple[Removal, ...] = ()
    smoothing: bool = True
    rate_from: float = 1.0
    """The learning rate at the beginning of the stage, as a share of the configured one."""
    rate_to: float = 1.0

    @property
    def removed_to(self) -> int:
        return self.removals[-1].removed_tokens if self.removals else self.removed_from


def linear_segments(
    total_tokens: int,
    tokens_per_stage: float,
    stage_steps: int,
    *,
    pretrain_steps: int = 0,
    consolidation_stages: int = 0,
    remove_all_beyond: int | None = None,
) -> list[Segment]:
    """The paper's s(t) = floor(Δ t / T), cut into stages just before every Δ-th removal.

    With pretraining, stage 0 is pure explicit CoT (no smoothing) and the clock t starts after it.
    """
    delta = Fraction(str(tokens_per_stage))

    def first_step(token: int) -> int:
        return -(-token * stage_steps // delta)

    removal_steps = _merged(
        ((first_step(token), token) for token in range(1, total_tokens + 1)), total_tokens, remove_all_beyond
    )
    starts = [0, *_stage_starts(removal_steps, delta)]
    end = removal_steps[-1][0] + first_step(1) if removal_steps else stage_steps
    pretrain = [Segment(pretrain_steps, 0, smoothing=False)] if pretrain_steps else []
    return [
        *pretrain,
        *_cut(removal_steps, [*starts, end]),
        *[Segment(stage_steps, total_tokens)] * consolidation_stages,
    ]


def reference_segments(
    total_tokens: int,
    tokens_per_stage: float,
    epoch_steps: int,
    *,
    pretrain_epochs: int = 0,
    consolidation_stages: int = 0,
    remove_all_beyond: int | None = None,
) -> list[Segment]:
    """The released script's schedule, one stage an epoch of N batches: a token every round(N/Δ) batches.

    Bug-compatible (research notes §1.9): the rounding changes Δ, and Δ >= 2N removes one token on
    every batch, counting even through the pretraining epochs that show nothing of it.
    """
    interval = round(epoch_steps / tokens_per_stage)
    begin = pretrain_epochs * epoch_steps

    def first_step(token: int) -> int:
        return begin + token * interval if interval else max(token - 1, begin)

    removal_steps = _merged(
        ((first_step(token), token) for token in range(1, total_tokens + 1)), total_tokens, remove_all_beyond
    )
    last = removal_steps[-1][0] if removal_steps else 0
    epochs = max(last // epoch_steps + 1, pretrain_epochs) + consolidation_stages
    segments = _cut(removal_steps, [epoch * epoch_steps for epoch in range(epochs + 1)])
    return [replace(segment, smoothing=epoch >= pretrain_epochs) for epoch, segment in enumerate(segments)]


def cooled(segments: list[Segment], cooldown_stages: int) -> list[Segment]:
    """The last stages with a learning rate that falls linearly to zero over them (ours, not the paper's)."""
    warm = len(segments) - cooldown_stages
    return segments[:warm] + [
        replace(segment, rate_from=1 - i / cooldown_stages, rate_to=1 - (i + 1) / cooldown_stages)
        for i, segment in enumerate(segments[warm:])
    ]


def smoothing_distribution(smoothing_lambda: float, bins: int = 100) -> list[float]:
    """P(o = i) = (1 - e^-λ) e^-λi, the missing tail mass on the last bin (paper §3, released code)."""
    if isinf(smoothing_lambda):
        return [1.0] + [0.0] * (bins - 1)
    head = [(1 - exp(-smoothing_lambda)) * exp(-smoothing_lambda * i) for i in range(bins - 1)]
    return [*head, 1.0 - sum(head) if sum(head) < 1.0 else 0.0]


def _merged(steps: Iterator[tuple[int, int]], total: int, beyond: int | None) -> list[tuple[int, int]]:
    """(step, removed) with one entry a step, stopping where the whole CoT is gone."""
    merged: dict[int, int] = {}
    for step, token in steps:
        merged[step] = total if beyond is not None and token >= beyond else token
        if merged[step] == total:
            break
    return list(merged.items())


def _stage_starts(removal_steps: list[tuple[int, int]], delta: Fraction) -> Iterator[int]:
    """The step of the first removal of every stage: a stage ends with the last token of its Δ."""
    stage_of_last = 0
    for step, token in removal_steps:
        stage = -(-token // delta)
        if stage > stage_of_last:
            yield step
            stage_of_last = stage


def _cut(removal_steps: list[tuple[int, int]], bounds: list[int]) -> list[Segment]:
    segments, removed = [], 0
    for start, end in pairwise(bounds):
        inside = tuple(Removal(step - start, token) for step, token in removal_steps if start <= step < end)
        segments.append(Segment(end - start, removed, inside))
        removed = segments[-1].removed_to
    return segments
