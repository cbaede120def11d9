"""Explicit CoT: the whole chain of thought is written, for as many steps as the stepwise run."""

from __future__ import annotations

from orchestrator.config import Schedule
from orchestrator.method.schedule import Segment
from orchestrator.method.stage import StageSpec, chain
from orchestrator.method.stepwise import segments


def stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """The stepwise run's stages without any removal; its stage 0 is the stepwise run's stage 0."""
    unchanged = [Segment(s.steps, 0, smoothing=False) for s in segments(schedule, total_tokens, epoch_steps)]
    return chain(unchanged, seed, total_tokens)
