"""The course of a stage: where it is in its schedule, and what it records on the way."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

import torch

from orchestrator.config import Training
from orchestrator.method.blocks import BlockSteps, Finding, Meter
from orchestrator.method.resume import Consumed, Moment, generators, packed, unpacked
from orchestrator.method.schedule import Removal
from orchestrator.method.stage import LossPoint, RemovalPoint, StageSpec
from orchestrator.method.tokens import TokenTable
from orchestrator.stability import Alarm, Block, Blocks


@dataclass(frozen=True)
class Trace:
    """The record of an attempt once its training has ended."""

    after_removal: tuple[RemovalPoint, ...]
    train_loss: tuple[LossPoint, ...]
    blocks: Blocks
    steps: int
    seconds: float


@dataclass
class Course:
    """The state of an attempt while it trains."""

    spec: StageSpec
    started: float
    steps: int
    """The optimizer steps taken so far."""
    removals: deque[Removal]
    """The removals still to come."""
    removed_tokens: int
    finding: Finding
    """The judge's finding after the last block. None once another token has gone."""
    consumed: Consumed
    after_removal: list[RemovalPoint]
    train_loss: list[LossPoint]
    blocks: list[Block]
    meter: Meter

    @classmethod
    def at(cls, begin: Moment, spec: StageSpec, table: TokenTable, training: Training) -> Course:
        return cls(
            spec=spec,
            started=time.perf_counter() - begin.seconds,
            steps=begin.steps,
            removals=deque(spec.removals[begin.removals :]),
            removed_tokens=spec.removed_after(begin.removals),
            finding="recovered" if begin.recovered else None,
            consumed=Consumed.after(begin.steps, spec, table, training),
            after_removal=[*begin.after_removal],
            train_loss=[*begin.train_loss],
            blocks=[*begin.blocks],
            meter=Meter(unpacked(begin.losses, torch.float32), unpacked(begin.gradient_norms, torch.float32)),
        )

    def removal_is_due(self, step: int) -> bool:
        recovered = self.spec.adaptive and self.finding == "recovered"
        return bool(self.removals) and (self.removals[0].step <= step or recovered)

    def remove(self) -> None:
        self.removed_tokens, self.finding = self.removals.popleft().removed_tokens, None

    def record_loss(self, steps: BlockSteps) -> None:
        if math.isfinite(steps.mean_loss):
            self.train_loss.append(LossPoint(step=self.spec.first_step + self.steps, loss=steps.mean_loss))

    @property
    def is_over(self) -> bool:
        """Return whether its judge ends it, before its last step."""
        recovered = self.spec.adaptive and self.finding == "recovered" and not self.removals
        return recovered or isinstance(self.finding, Alarm)

    def moment(self, device: torch.device) -> Moment:
        """Collective."""
        losses, norms = self.meter.so_far()
        return Moment(
            steps=self.steps,
            removals=len(self.spec.removals) - len(self.removals),
            recovered=self.finding == "recovered",
            after_removal=tuple(self.after_removal),
            train_loss=tuple(self.train_loss),
            blocks=tuple(self.blocks),
            losses=packed(losses),
            gradient_norms=packed(norms),
            seconds=time.perf_counter() - self.started,
            consumed=self.consumed.digest,
            generators=generators(device),
        )

    def trace(self) -> Trace:
        return Trace(
            after_removal=tuple(self.after_removal),
            train_loss=tuple(self.train_loss),
            blocks=tuple(self.blocks),
            steps=self.steps,
            seconds=time.perf_counter() - self.started,
        )
