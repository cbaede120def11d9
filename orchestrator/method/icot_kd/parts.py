"""ICoT-KD (Deng et al. 2023, arXiv 2311.01460): a student learns to answer from its teacher's thoughts,
an emulator learns to think them up from the question, and both are trained on as one.

The teacher is Explicit CoT's; the three other parts internalize the whole CoT at once. With pretrained weights
student and emulator begin as the teacher began (the paper); a model from scratch has only random ones, so there they
begin as the teacher ended (ours). In a job with cooldown stages each part ends with a rate that falls to zero (ours,
too).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from orchestrator.config import IcotKd, Schedule
from orchestrator.method.stage import Kind, StageSpec
from orchestrator.method.stepwise import explicit_cot_stages

COOLDOWN = 0.3
"""Share of a part over which it does. Over the whole part an emulator of 1x2 digits ended twice as far off."""


def stages(
    config: IcotKd, schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int, *, scratch: bool
) -> tuple[StageSpec, ...]:
    """The teacher's stages, then mind-reading student and thought emulator, then the two coupled.

    ``scratch``: the job's model has no pretrained weights.
    """

    def part(kind: Kind, epochs: float, first_step: int) -> StageSpec:
        steps = max(1, round(epochs * epoch_steps))
        spec = StageSpec(seed, first_step, steps, total_tokens, (), total_tokens, kind=kind)
        cooled = replace(spec, rate_to=0.0, cooldown=COOLDOWN) if schedule.cooldown_stages else spec
        return replace(cooled, as_teacher=scratch and kind != "coupling")

    teacher = teacher_stages(config, schedule, seed, total_tokens, epoch_steps)
    taught = teacher[-1].last_step
    student = part("mind_reading", config.student_epochs, taught)
    emulator = replace(
        part("thought_emulation", config.emulator_epochs, taught),
        mixture_size=config.mixture_size,
        mixture_temperature=config.mixture_temperature,
    )
    coupled = part("coupling", config.coupling_epochs, max(student.last_step, emulator.last_step))
    return (*teacher, student, emulator, coupled)


def teacher_stages(
    config: IcotKd, schedule: Schedule, seed: int, total_tokens: int, epoch_steps: int
) -> tuple[StageSpec, ...]:
    """The first of Explicit CoT's stages that are long enough together; all of them if none are."""
    explicit = explicit_cot_stages(schedule, seed, total_tokens, epoch_steps)
    wanted = round(config.teacher_epochs * epoch_steps)
    short = sum(steps < wanted for steps in accumulate(spec.steps for spec in explicit))
    return explicit[: short + 1]
