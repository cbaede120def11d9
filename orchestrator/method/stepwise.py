"""Stepwise Internalization (ICoT-SI): explicit CoT first, then a few tokens less at every stage. And two baselines."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.config import Schedule
from orchestrator.method.schedule import Segment, cooled, linear_segments, reference_segments
from orchestrator.method.stage import StageSpec, chain


def segments(schedule: Schedule, total_tokens: int, epoch_steps: int) -> list[Segment]:
    """The schedule of a job, cut into stages. ``epoch_steps``: optimizer steps per pass over the data."""
    if schedule.type == "reference":
        cut = reference_segments(
            total_tokens,
            schedule.tokens_per_stage,
            epoch_steps,
            pretrain_epochs=round(schedule.pretrain_epochs or 0),
            consolidation_stages=schedule.consolidation_stages,
            remove_all_beyond=schedule.remove_all_beyond,
        )
    else:
        cut = linear_segments(
            total_tokens,
            schedule.tokens_per_stage,
            schedule.stage_steps or max(1, round(epoch_steps * (schedule.stage_epochs or 1))),
            pretrain_steps=schedule.pretrain_steps or round(epoch_steps * (schedule.pretrain_epochs or 0)),
            consolidation_stages=schedule.consolidation_stages,
            remove_all_beyond=schedule.remove_all_beyond,
        )
    return cooled(cut, schedule.cooldown_stages)


def stepwise_stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """The paper's method."""
    return chain(
        segments(schedule, total_tokens, epoch_steps),
        seed,
        total_tokens,
        smoothing_lambda=schedule.smoothing_lambda,
        removal_side=schedule.removal_side,
        keep_position=schedule.keep_position,
        adaptive=schedule.type == "adaptive",
    )


def no_cot_stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """No CoT: the answer alone from the first step, for as many steps as the stepwise run."""
    empty = [
        replace(segment, removed_from=total_tokens, removals=(), smoothing=False)
        for segment in segments(schedule, total_tokens, epoch_steps)
    ]
    return chain(empty, seed, total_tokens)


def explicit_cot_stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """Explicit CoT: the whole chain of thought is written, for as many steps as the stepwise run.

    Nothing is removed; its stage 0 is the stepwise run's stage 0.
    """
    unchanged = [
        replace(segment, removed_from=0, removals=(), smoothing=False)
        for segment in segments(schedule, total_tokens, epoch_steps)
    ]
    return chain(unchanged, seed, total_tokens)
