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
from orchestrator.method.resume import Consumed, Moment, generators, restore_generators
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
    begin: Moment | None = None,
    keep: Callable[[Callable[[], Moment]], None] = lambda now: None,
) -> Trace:
    """Train ``model`` in place through one stage, to its end or to the block that its judge stops it at.

    ``observer`` measures, and judges for all; None on all workers but the first. ``keep`` is offered where
    the stage is after every block but its last; to go on from there, ``begin`` with the weights and the
    optimizer of that moment.
    """
    begin = begin or Moment()
    started = time.perf_counter() - begin.seconds
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(_mixed(spec.seed, spec.first_step) + rank)  # dropout, the same after a resume
    parallel = DistributedDataParallel(model) if world > 1 else model
    model.train()
    if begin.generators:
        restore_generators(begin.generators[rank], model.device)
    elif spec.warmup_steps:
        optimizer.reset()
    removals, removed = deque(spec.removals[begin.removals :]), spec.removed_after(begin.removals)
    points, losses, blocks, meter = [*begin.after_removal], [*begin.train_loss], [*begin.blocks], Meter()
    finding: Finding = "recovered" if begin.recovered else None
    consumed = Consumed.after(begin.steps, spec, table, training)

    def now() -> Moment:
        return Moment(
            steps=step + 1,
            removals=len(spec.removals) - len(removals),
            recovered=finding == "recovered",
            after_removal=tuple(points),
            train_loss=tuple(losses),
            blocks=tuple(blocks),
            seconds=time.perf_counter() - started,
            consumed=consumed.digest,
            generators=generators(model.device),
        )

    watch(Progress(begin.steps, removed))
    left = spec.steps - begin.steps
    rows_of_step = batch_rows(len(table), training.batch_size, spec.seed, spec.first_step + begin.steps, left)
    for step, rows in enumerate(rows_of_step, begin.steps):
        at = spec.first_step + step
        consumed.add(rows.tobytes())
        if removals and (finding == "recovered" if spec.adaptive else removals[0].step == step):
            removed, finding = removals.popleft().removed_tokens, None
            if observer:
                points.append(observer.after_removal(model, spec, at, removed))
            if training.reset_optimizer:
                optimizer.reset()
        batch, learnt_tokens = _share(table, rows, spec, at, removed, rank, world)
        loss = _loss_sum(parallel, batch, training) * (world / learnt_tokens)
        loss.backward()
        ends_block = step + 1 == spec.steps or (step + 1) % block_steps(spec) == 0
        before = [weight.clone() for weight in weights(optimizer)] if ends_block else []
        meter.add(loss.detach(), optimizer.step(_rate(spec, step)))
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
        if step + 1 < spec.steps:
            keep(now)
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
