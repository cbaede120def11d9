"""A stage: what it does, and what is recorded of it. Plain values, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.method.schedule import Removal, Segment
from orchestrator.stability import Block, Pace

Verdict = Literal["good", "suspect", "diverged", "stuck"]
"""``suspect``: the chain goes on, but neither is it restarted from here nor are others measured by it."""

PASSED = ("good", "suspect")

Kind = Literal["train", "mind_reading", "thought_emulation", "coupling"]
"""The work of a stage: training with removal, or one of the parts of ICoT-KD."""

NEEDS: dict[Kind, tuple[Kind, ...]] = {
    "train": ("train",),
    "mind_reading": ("train",),
    "thought_emulation": ("train",),
    "coupling": ("mind_reading", "thought_emulation"),
}
"""The parents of a stage: of each of these kinds the last one before it in its chain, if there is one."""

RESTART_WARMUP = 0.05
"""Share of a restarted stage over which its new optimizer warms up (research notes, reliability §2.7)."""


@dataclass(frozen=True)
class StageSpec:
    """The unit that is checkpointed, cached and judged. Everything here changes the numbers.

    Optimizer steps are counted along the chain: ``first_step`` of them lie on the longest way to this
    stage, and with the seed they fix the data order and the smoothing offsets.
    """

    seed: int
    first_step: int
    steps: int
    removed_from: int
    removals: tuple[Removal, ...]
    total_tokens: int
    smoothing_lambda: float = float("inf")
    removal_side: Literal["left", "right"] = "left"
    keep_position: bool = False
    rate_from: float = 1.0
    rate_to: float = 1.0
    adaptive: bool = False
    """A token goes before its step if a spot check finds the model recovered from the one before, and the stage ends
    with the last recovery: ``steps`` and the steps of its removals are the latest."""
    warmup_steps: int = 0
    """The steps over which a restarted stage warms up its new optimizer. 0: no restart."""
    kind: Kind = "train"
    mixture_size: int = 1
    """The number of mixture vectors of a thought emulator."""
    mixture_temperature: float = 0.05
    cooldown: float = 1.0
    """The share of the stage, at its end, over which the rate goes from ``rate_from`` to ``rate_to``."""
    as_teacher: bool = False
    """A flag for mind-reading student and thought emulator: they begin with the teacher's weights."""

    @property
    def removed_to(self) -> int:
        return self.removed_after(len(self.removals))

    def removed_after(self, removals: int) -> int:
        """Tokens scheduled for removal once so many of the stage's removals have happened."""
        return self.removals[removals - 1].removed_tokens if removals else self.removed_from

    @property
    def last_step(self) -> int:
        """Return the step at which the stages begin that start from this one."""
        return self.first_step + self.steps

    @property
    def answers(self) -> bool:
        """Return whether the stage's model answers questions by itself. One that prepares another stage does not."""
        return self.kind in ("train", "coupling")

    @property
    def consolidation(self) -> bool:
        """Return whether nothing is left to remove."""
        return not self.removals and self.removed_from == self.total_tokens

    def attempted(self, first_step: int, seed: int, pace: Pace, *, restart: bool) -> StageSpec:
        """The stage at another pace: the schedule's clock runs slower, its ends stay."""
        steps = int(self.steps * pace.stretch)
        return replace(
            self,
            seed=seed,
            first_step=first_step,
            steps=steps,
            removals=tuple(replace(removal, step=int(removal.step * pace.stretch)) for removal in self.removals),
            rate_from=self.rate_from * pace.learning_rate,
            rate_to=self.rate_to * pace.learning_rate,
            warmup_steps=math.ceil(RESTART_WARMUP * steps) if restart else 0,
        )

    def document(self) -> dict[str, Any]:
        """As JSON, for the stage key and the manifest; what is at its default is left out."""
        document = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        document["removals"] = [[removal.step, removal.removed_tokens] for removal in self.removals]
        return document


class Record(BaseModel):
    """A frozen value that travels between rooms and into files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RemovalPoint(Record):
    """Exact match right after a removal, before any step was trained on it; on the first 250 examples."""

    step: int
    removed_tokens: int
    exact_match: float


class LossPoint(Record):
    """Mean training loss over the steps up to ``step`` of the chain since the point before."""

    step: int
    loss: float


class StageMetrics(Record):
    """The measurements of one attempt of a stage. Rates are examples per second of greedy decoding,
    on a CPU per second of CPU time; 0 for a model that does not answer by itself.
    """

    removed_tokens: int
    total_tokens: int
    exact_match: float
    """The share of right answers. A mind-reading student is given the teacher's thoughts; an emulator's is 0."""
    examples: int
    validation_loss: float
    """Mean over the validation tokens that are left to write; of an emulator, over the examples."""
    generated_tokens: float
    examples_per_second: float
    examples_per_second_batched: float
    after_removal: tuple[RemovalPoint, ...] = ()
    train_loss: tuple[LossPoint, ...] = ()
    train_seconds: float
    evaluate_seconds: float
    steps_taken: int | None = None
    """Fewer than planned if the stage ended early. None, in older records: all of them."""
    blocks: tuple[Block, ...] = ()
    """The blocks that the verdict rests on."""
    detector: str = ""
    """Which rule the verdict comes from, unless it is plainly good."""


def chain(segments: list[Segment], seed: int, total_tokens: int, **options: Any) -> tuple[StageSpec, ...]:
    """The stages of a chain, in order. ``options`` apply to the segments that remove or smooth."""
    stages, first_step = [], 0
    for segment in segments:
        spec = StageSpec(
            seed=seed,
            first_step=first_step,
            steps=segment.steps,
            removed_from=segment.removed_from,
            removals=segment.removals,
            total_tokens=total_tokens,
            rate_from=segment.rate_from,
            rate_to=segment.rate_to,
        )
        stages.append(replace(spec, **options) if segment.smoothing else spec)
        first_step += segment.steps
    return tuple(stages)


def first_steps(stages: Iterable[StageSpec], steps: int) -> tuple[StageSpec, ...]:
    """Return the stages of a chain's first ``steps`` optimizer steps, the last one perhaps cut short."""
    return tuple(_shortened(stage, steps - stage.first_step) for stage in stages if stage.first_step < steps)


def _shortened(stage: StageSpec, steps: int) -> StageSpec:
    if steps >= stage.steps:
        return stage
    return replace(
        stage,
        steps=steps,
        removals=tuple(removal for removal in stage.removals if removal.step < steps),
        rate_to=stage.rate_from + (stage.rate_to - stage.rate_from) * steps / stage.steps,
    )
