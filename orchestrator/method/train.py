"""Training one stage: the paper's loop.

At every optimizer step the schedule says how many CoT tokens are gone; smoothing removes a few
more from some examples; the batch is cut; the loss is the mean over all tokens after the first
separator; when a token goes, AdamW is built anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from orchestrator.config import Training
from orchestrator.method.data import TokenTable, batch_rows
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.model import autocast
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.removal import IGNORED, CutBatch, cut, draw_removed
from orchestrator.method.stage import LossPoint, RemovalPoint, StageSpec

BLOCKS = 20
"""A stage's training loss is recorded, and checked for being finite, at most this many times."""


AFTER_REMOVAL_EXAMPLES = 250
"""Validation examples that are measured right after a removal."""


@dataclass(frozen=True)
class Progress:
    """Where a stage is, for whoever watches."""

    step: int
    removed_tokens: int


@dataclass(frozen=True)
class Trace:
    """What training a stage recorded on the way. ``finite``: no loss was infinite or not a number."""

    after_removal: tuple[RemovalPoint, ...]
    train_loss: tuple[LossPoint, ...]
    seconds: float
    finite: bool


def train_stage(
    model: PreTrainedModel,
    optimizer: Optimizer,
    spec: StageSpec,
    table: TokenTable,
    training: Training,
    evaluator: Evaluator | None,
    watch: Callable[[Progress], None],
) -> Trace:
    """Train ``model`` in place through one stage; stop at the first block whose loss is not finite.

    ``evaluator`` measures exact match right after every removal; None on all workers but the first.
    """
    started = time.perf_counter()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(_mixed(spec.seed, spec.first_step) + rank)  # dropout, the same after a resume
    parallel = DistributedDataParallel(model) if world > 1 else model
    model.train()
    removals = {removal.step: removal.removed_tokens for removal in spec.removals}
    removed, points, losses, block = spec.removed_from, [], [], _Block(model.device)
    watch(Progress(0, removed))
    rows_of_step = batch_rows(len(table), training.batch_size, spec.seed, spec.first_step, spec.steps)
    for step, rows in enumerate(rows_of_step):
        at = spec.first_step + step
        if step in removals:
            removed = removals[step]
            if evaluator:
                points.append(_after_removal(model, spec, evaluator, at, removed))
            if training.reset_optimizer:
                optimizer.reset()
        batch, learnt_tokens = _share(table, rows, spec, at, removed, rank, world)
        loss = _loss_sum(parallel, batch, training) * (world / learnt_tokens)
        loss.backward()
        optimizer.step(spec.rate_from + (spec.rate_to - spec.rate_from) * step / spec.steps)
        block.add(loss.detach())
        if step + 1 == spec.steps or (step + 1) % -(-spec.steps // BLOCKS) == 0:
            mean = block.mean()
            if not math.isfinite(mean):
                return Trace(tuple(points), tuple(losses), time.perf_counter() - started, finite=False)
            losses.append(LossPoint(step=at + 1, loss=mean))
            watch(Progress(step + 1, removed))
    return Trace(tuple(points), tuple(losses), time.perf_counter() - started, finite=True)


def _after_removal(
    model: PreTrainedModel, spec: StageSpec, evaluator: Evaluator, step: int, removed_tokens: int
) -> RemovalPoint:
    removed = Removed(removed_tokens, spec.removal_side, spec.keep_position)
    accuracy = evaluator.accuracy(model, removed, AFTER_REMOVAL_EXAMPLES)
    return RemovalPoint(step=step, removed_tokens=removed_tokens, exact_match=accuracy.exact_match)


class _Block:
    """Running mean of the loss, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.sum, self.count = torch.zeros((), device=device), 0

    def add(self, loss: torch.Tensor) -> None:
        self.sum += loss
        self.count += 1

    def mean(self) -> float:
        """The mean since the last call, over all workers, so that they leave a diverged stage together."""
        if dist.is_initialized():
            dist.all_reduce(self.sum)
            self.sum /= dist.get_world_size()
        mean = self.sum.item() / self.count
        self.sum.zero_()
        self.count = 0
        return mean


def _share(
    table: TokenTable, rows: np.ndarray, spec: StageSpec, step: int, removed: int, rank: int, world: int
) -> tuple[CutBatch, int]:
    """This worker's part of the step's batch, cut, and the learnt tokens of the whole batch.

    Offsets are a function of seed and step alone and are drawn for the whole batch, so without
    dropout the number of workers changes nothing but the order of additions.
    """
    generator = torch.Generator().manual_seed(_mixed(spec.seed, step))
    removed_B = draw_removed(removed, spec.smoothing_lambda, len(rows), generator)
    whole = table.batch(rows)
    batch = cut(whole, removed_B, spec.removal_side, spec.keep_position)
    learnt_tokens = int((batch.labels_BK != IGNORED).sum())
    if world > 1:
        own = slice(rank * len(rows) // world, (rank + 1) * len(rows) // world)
        batch = cut(whole.rows(own), removed_B[own], spec.removal_side, spec.keep_position)
    return batch, learnt_tokens


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _loss_sum(model: torch.nn.Module, batch: CutBatch, training: Training) -> torch.Tensor:
    """Summed next-token cross-entropy. Logits are made from the first learnt token on, not before."""
    device = next(model.parameters()).device
    first = int((batch.labels_BK != IGNORED).int().argmax(1).min())
    labels = batch.labels_BK[:, first:].to(device, non_blocking=True)
    with autocast(device, training):
        logits = model(
            input_ids=batch.tokens_BK[:, :-1].to(device, non_blocking=True),
            attention_mask=batch.attention_mask[:, :-1].to(device, non_blocking=True),
            position_ids=batch.positions_BK[:, :-1].to(device, non_blocking=True),
            logits_to_keep=labels.shape[1],
            use_cache=False,
        ).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
