"""The measurements of a stage while it trains: exact match right after a removal, and block by block its signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from orchestrator.config import Training
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.models.model import autocast
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.stage import RemovalPoint, StageSpec
from orchestrator.method.workers import over_all
from orchestrator.stability import Alarm, Block, Blocks

AFTER_REMOVAL_EXAMPLES = 250
"""The number of validation examples that are measured right after a removal."""

Finding = Alarm | Literal["recovered"] | None
"""A judge's answer after a block: end the stage; the next token may go; go on."""


@dataclass(frozen=True)
class BlockSteps:
    """The steps of one block."""

    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    update_ratio: float

    @property
    def mean_loss(self) -> float:
        return fmean(self.losses)

    @property
    def non_finite(self) -> int:
        steps = zip(self.losses, self.gradient_norms, strict=True)
        return sum(not (math.isfinite(loss) and math.isfinite(norm)) for loss, norm in steps)


class Meter:
    """Losses and gradient norms of a block, kept on the device so that no step waits for them.

    ``losses``, ``norms``: of a block that is gone on with, what ``so_far`` returned.
    """

    def __init__(self, losses: Tensor, norms: Tensor) -> None:
        self._gathered = losses, norms
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []

    def add(self, loss: Tensor, gradient_norm: Tensor) -> None:
        self._losses.append(loss)
        self._norms.append(gradient_norm)

    def so_far(self) -> tuple[Tensor, Tensor]:
        """Losses over all workers, and gradient norms, on the CPU. Collective."""
        if self._losses:
            losses = torch.stack(self._losses)
            if dist.is_initialized():
                dist.all_reduce(losses)
                losses /= dist.get_world_size()
            before, since = self._gathered, (losses, torch.stack(self._norms))
            self._gathered = torch.cat([before[0], since[0].cpu()]), torch.cat([before[1], since[1].cpu()])
            self._losses.clear()
            self._norms.clear()
        return self._gathered

    def close(self, optimizer: Optimizer, before: list[Tensor]) -> BlockSteps:
        """The block so far. ``before``: the weights before its last update."""
        updates = [after - old for after, old in zip(weights(optimizer), before, strict=True)]
        ratio = over_all(get_total_norm(updates)) / over_all(get_total_norm(before))
        losses, norms = self.so_far()
        self._gathered = torch.empty(0), torch.empty(0)
        return BlockSteps(tuple(losses.tolist()), tuple(norms.tolist()), float(ratio))


def weights(optimizer: Optimizer) -> list[Tensor]:
    return [parameter.detach() for parameter in optimizer.parameters]


@dataclass(frozen=True)
class Observer:
    """The worker that measures and judges, for all."""

    evaluator: Evaluator
    training: Training
    examples: int
    """The number of validation examples in a spot check."""
    judge: Callable[[Blocks], Finding]

    def after_removal(self, model: PreTrainedModel, spec: StageSpec, step: int, removed_tokens: int) -> RemovalPoint:
        accuracy = self.evaluator.accuracy(model, _removed(spec, removed_tokens), AFTER_REMOVAL_EXAMPLES)
        return RemovalPoint(step=step, removed_tokens=removed_tokens, exact_match=accuracy.exact_match)

    def block(
        self, model: PreTrainedModel, spec: StageSpec, step: int, removed_tokens: int, steps: BlockSteps
    ) -> Block:
        with autocast(model.device, self.training):  # as precise as a step, and as cheap
            check = self.evaluator.spot_check(model, _removed(spec, removed_tokens), self.examples)
        return Block(
            step=step,
            removed_tokens=removed_tokens,
            probe_loss=check.loss,
            probe_exact_match=check.exact_match,
            train_loss=median(steps.losses),
            train_loss_max=max(steps.losses),
            gradient_norm=median(steps.gradient_norms),
            gradient_norm_max=max(steps.gradient_norms),
            non_finite=steps.non_finite,
            update_ratio=steps.update_ratio,
        )


def _removed(spec: StageSpec, tokens: int) -> Removed:
    return Removed(tokens, spec.removal_side, spec.keep_position)
