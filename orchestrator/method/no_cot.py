"""No CoT: the answer alone from the first step, for as many steps as the stepwise run."""

from __future__ import annotations

from orchestrator.config import Schedule
from orchestrator.method.schedule import Segment
from orchestrator.method.stage import StageSpec, chain
from orchestrator.method.stepwise import segments


def stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """The stepwise run's stages with every CoT token gone throughout."""
    empty = [Segment(s.steps, total_tokens, smoothing=False) for s in segments(schedule, total_tokens, epoch_steps)]
    return chain(empty, seed, total_tokens)
