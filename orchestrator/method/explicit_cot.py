"""Explicit CoT: the whole chain of thought is written, for as many steps as the stepwise run."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.config import Schedule
from orchestrator.method.stage import StageSpec, chain
from orchestrator.method.stepwise import segments


def stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """The stepwise run's stages without any removal; its stage 0 is the stepwise run's stage 0."""
    unchanged = [
        replace(segment, removed_from=0, removals=(), smoothing=False)
        for segment in segments(schedule, total_tokens, epoch_steps)
    ]
    return chain(unchanged, seed, total_tokens)
