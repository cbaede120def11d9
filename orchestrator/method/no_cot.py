"""No CoT: the answer alone from the first step, for as many steps as the stepwise run."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.config import Schedule
from orchestrator.method.stage import StageSpec, chain
from orchestrator.method.stepwise import segments


def stages(schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int) -> tuple[StageSpec, ...]:
    """The stepwise run's stages with every CoT token gone throughout."""
    empty = [
        replace(segment, removed_from=total_tokens, removals=(), smoothing=False)
        for segment in segments(schedule, total_tokens, epoch_steps)
    ]
    return chain(empty, seed, total_tokens)
