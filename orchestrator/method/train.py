"""Training one stage: the paper's loop.

At every optimizer step the schedule says how many CoT tokens are gone; smoothing removes a few
more from some examples; the batch is cut; the loss is the mean over all tokens after the first
separator; when a token goes, AdamW is built anew.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from orchestrator.config import Training
from orchestrator.method.data import TokenTable, batch_rows
from orchestrator.method.model import autocast
from orchestrator.method.observe import Finding, Meter, Observer, told, weights
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.removal import IGNORED, CutBatch, cut, draw_removed
from orchestrator.method.stage import LossPoint, RemovalPoint, StageSpec
from orchestrator.stability import Alarm, Blocks

BLOCKS = 20
"""A stage is recorded and judged at most this often, ..."""
BLOCKS_PER_REMOVAL = 10
"""... under the adaptive schedule also this often for every token it removes."""


@dataclass(frozen=True)
class Progress:
    """Where a stage is, for whoever watches."""

    step: int
    removed_tokens: int


@dataclass(frozen=True)
class Trace:
    """What training a stage recorded on the way. ``removed_tokens``: scheduled for removal at its end."""

    after_removal: tuple[RemovalPoint, ...]
    train_loss: tuple[LossPoint, ...]
    blocks: Blocks
    alarm: Alarm | None
    steps: int
    removed_tokens: int
    seconds: float


def train_stage(
    model: PreTrainedModel,
    optimizer: Optimizer,
    spec: StageSpec,
    table: TokenTable,
    training: Training,
    observer: Observer | None,
    watch: Callable[[Progress], None],
    micro_batch: int | None = None,
) -> Trace:
    """Train ``model`` in place through one stage, to its end or to the block that its judge stops it at.

    ``observer`` measures, and judges for all; None on all workers but the first. ``micro_batch``: examples of one
    forward pass; by default a worker's whole share.
    """
    started = time.perf_counter()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(_mixed(spec.seed, spec.first_step) + rank)  # dropout, the same after a resume
    parallel = DistributedDataParallel(model) if world > 1 else model
    model.train()
    if spec.warmup_steps:
        optimizer.reset()
    removals, removed = deque(spec.removals), spec.removed_from
    points, losses, blocks, meter = [], [], [], Meter()
    finding: Finding = "recovered"
    watch(Progress(0, removed))
    rows_of_step = batch_rows(len(table), training.batch_size, spec.seed, spec.first_step, spec.steps)
    for step, rows in enumerate(rows_of_step):
        at = spec.first_step + step
        if removals and (finding == "recovered" if spec.adaptive else removals[0].step == step):
            removed, finding = removals.popleft().removed_tokens, None
            if observer:
                points.append(observer.after_removal(model, spec, at, removed))
            if training.reset_optimizer:
                optimizer.reset()
        parts, learnt_tokens = _share(table, rows, spec, at, removed, rank, world, micro_batch)
        loss = _backward(parallel, parts, training, world / learnt_tokens)
        ends_block = step + 1 == spec.steps or (step + 1) % block_steps(spec) == 0
        before = [weight.clone() for weight in weights(optimizer)] if ends_block else []
        meter.add(loss, optimizer.step(_rate(spec, step)))
        if not ends_block:
            continue
        steps = meter.close(optimizer, before)
        watch(Progress(step + 1, removed))
        if math.isfinite(steps.mean_loss):
            losses.append(LossPoint(step=at + 1, loss=steps.mean_loss))
        if observer:
            blocks.append(observer.block(model, spec, step + 1, removed, steps))
        finding = told(observer.judge(tuple(blocks)) if observer else None)
        if isinstance(finding, Alarm) or (spec.adaptive and finding == "recovered" and not removals):
            break
    alarm = finding if isinstance(finding, Alarm) else None
    seconds = time.perf_counter() - started
    return Trace(tuple(points), tuple(losses), tuple(blocks), alarm, step + 1, removed, seconds)


def _rate(spec: StageSpec, step: int) -> float:
    """The share of the learning rate at a step of the stage."""
    share = spec.rate_from + (spec.rate_to - spec.rate_from) * step / spec.steps
    return share * min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else share


def block_steps(spec: StageSpec) -> int:
    """Steps of a block."""
    blocks = max(BLOCKS, BLOCKS_PER_REMOVAL * len(spec.removals)) if spec.adaptive else BLOCKS
    return -(-spec.steps // blocks)


def _share(
    table: TokenTable,
    rows: np.ndarray,
    spec: StageSpec,
    step: int,
    removed: int,
    rank: int,
    world: int,
    micro_batch: int | None,
) -> tuple[list[CutBatch], int]:
    """This worker's part of the step's batch, cut and in micro-batches, and the learnt tokens of the whole batch.

    Offsets are a function of seed and step alone and are drawn for the whole batch, so without
    dropout the number of workers changes nothing but the order of additions.
    """
    generator = torch.Generator().manual_seed(_mixed(spec.seed, step))
    removed_B = draw_removed(removed, spec.smoothing_lambda, len(rows), generator)
    whole = table.batch(rows)
    batch = cut(whole, removed_B, spec.removal_side, spec.keep_position)
    learnt_tokens = int((batch.labels_BK != IGNORED).sum())
    begin, end = rank * len(rows) // world, (rank + 1) * len(rows) // world
    size = micro_batch or end - begin
    if size >= len(rows):
        return [batch], learnt_tokens
    slices = [slice(at, min(at + size, end)) for at in range(begin, end, size)]
    parts = [cut(whole.rows(own), removed_B[own], spec.removal_side, spec.keep_position) for own in slices]
    return parts, learnt_tokens


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _backward(model: torch.nn.Module, parts: list[CutBatch], training: Training, scale: float) -> torch.Tensor:
    """Add up the gradients of all parts; workers exchange them once, with the last. Returns the scaled loss."""
    losses = []
    for part in parts:
        waits = isinstance(model, DistributedDataParallel) and part is not parts[-1]
        with model.no_sync() if waits else nullcontext():
            loss = _loss_sum(model, part, training) * scale
            loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


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
