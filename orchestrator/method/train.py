"""Training one stage: the paper's loop. What a step learns is its objective's; the loop is the same for all.

At every optimizer step the schedule says how many CoT tokens are gone; smoothing removes a few
more from some examples; the batch is cut; the loss is the mean over all tokens after the first
separator; when a token goes, AdamW is built anew.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from orchestrator.config import Resources, Training
from orchestrator.method.data import TokenTable, batch_rows
from orchestrator.method.model import autocast
from orchestrator.method.observe import Finding, Meter, Observer, told, weights
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.removal import IGNORED, Batch, CutBatch, cut, draw_removed, without_long
from orchestrator.method.resume import Consumed, Moment, generators, restore_generators
from orchestrator.method.sharding import Gather, is_split
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
class Step:
    """A step of a stage. ``step`` counts over the chain."""

    spec: StageSpec
    step: int
    removed_tokens: int


Terms = Sequence[Callable[[], torch.Tensor]]
"""What a step's loss adds up from: one forward pass each, made when it is called."""
Objective = Callable[[torch.nn.Module, TokenTable, np.ndarray, Step, Training], Terms]
"""The mean loss of a model over the given rows, as far as it is this worker's: over all workers together the
mean of what each adds up is the mean over the batch."""


@dataclass(frozen=True)
class Trace:
    """What training a stage recorded on the way."""

    after_removal: tuple[RemovalPoint, ...]
    train_loss: tuple[LossPoint, ...]
    blocks: Blocks
    alarm: Alarm | None
    steps: int
    seconds: float


def train_stage(
    model: PreTrainedModel,
    optimizer: Optimizer,
    spec: StageSpec,
    table: TokenTable,
    training: Training,
    observer: Observer | None,
    watch: Callable[[Progress], None],
    objective: Objective | None = None,
    begin: Moment | None = None,
    keep: Callable[[Callable[[], Moment]], None] = lambda now: None,
    gather: Gather | None = None,
) -> Trace:
    """Train ``model`` in place through one stage, to its end or to the block that its judge stops it at.

    ``observer`` measures, and judges for all; None on all workers but the first. ``objective``: default is
    that of training with removal. ``keep`` is offered where the stage is after every block but its last; to
    go on from there, ``begin`` with the weights and the optimizer of that moment. ``gather``: of a model whose
    weights are split over the workers.
    """
    begin = begin or Moment()
    started = time.perf_counter() - begin.seconds
    rank, world = ranked()
    torch.manual_seed(_mixed(spec.seed, spec.first_step) + rank)  # dropout, the same after a resume
    # An emulator has no use for its network's last layer.
    unused = spec.kind in ("thought_emulation", "coupling")
    copies = world > 1 and not is_split(model)
    parallel = DistributedDataParallel(model, find_unused_parameters=unused) if copies else model
    objective, gather = objective or removal_loss, gather or (lambda: model)
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
        if removals and (removals[0].step <= step or (spec.adaptive and finding == "recovered")):
            removed, finding = removals.popleft().removed_tokens, None
            whole = gather()
            if observer:
                points.append(observer.after_removal(whole, spec, at, removed))
            if training.reset_optimizer:
                optimizer.reset()
        loss = _backward(parallel, objective(parallel, table, rows, Step(spec, at, removed), training))
        ends_block = step + 1 == spec.steps or (step + 1) % block_steps(spec) == 0
        before = [weight.clone() for weight in weights(optimizer)] if ends_block else []
        meter.add(loss, optimizer.step(_rate(spec, step)))
        if not ends_block:
            continue
        steps = meter.close(optimizer, before)
        watch(Progress(step + 1, removed))
        if math.isfinite(steps.mean_loss):
            losses.append(LossPoint(step=at + 1, loss=steps.mean_loss))
        whole = gather()
        if observer:
            blocks.append(observer.block(whole, spec, step + 1, removed, steps))
        finding = told(observer.judge(tuple(blocks)) if observer else None)
        if isinstance(finding, Alarm) or (spec.adaptive and finding == "recovered" and not removals):
            break
        if step + 1 < spec.steps:
            keep(now)
    alarm = finding if isinstance(finding, Alarm) else None
    seconds = time.perf_counter() - started
    return Trace(tuple(points), tuple(losses), tuple(blocks), alarm, step + 1, seconds)


def _rate(spec: StageSpec, step: int) -> float:
    """The share of the learning rate at a step of the stage."""
    share = spec.rate_from + (spec.rate_to - spec.rate_from) * step / spec.steps
    return share * min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else share


def block_steps(spec: StageSpec) -> int:
    """Steps of a block."""
    blocks = max(BLOCKS, BLOCKS_PER_REMOVAL * len(spec.removals)) if spec.adaptive else BLOCKS
    return -(-spec.steps // blocks)


def ranked() -> tuple[int, int]:
    """This worker's number, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def own_rows(size: int) -> slice:
    """This worker's examples of a batch."""
    rank, world = ranked()
    return slice(rank * size // world, (rank + 1) * size // world)


def removal_loss(
    model: torch.nn.Module,
    table: TokenTable,
    rows: np.ndarray,
    at: Step,
    training: Training,
    resources: Resources | None = None,
) -> Terms:
    """Next-token cross-entropy on all that is left to write. ``resources`` say how much goes into one forward
    pass; by default a worker's whole share.
    """
    parts, learnt_tokens = _share(table, rows, at, training, resources or Resources())
    scale = ranked()[1] / learnt_tokens
    return [partial(_scaled_loss, model, part, training, scale) for part in parts]


def _share(
    table: TokenTable, rows: np.ndarray, at: Step, training: Training, resources: Resources
) -> tuple[list[CutBatch], int]:
    """This worker's part of the step's batch, cut and in micro-batches, and the learnt tokens of the whole batch
    (at least 1).

    Offsets are a function of seed and step alone and are drawn for the whole batch, so without
    dropout the number of workers changes nothing but the order of additions.
    """
    spec = at.spec
    generator = torch.Generator().manual_seed(_mixed(spec.seed, at.step))
    removed_B = draw_removed(at.removed_tokens, spec.smoothing_lambda, len(rows), generator)
    whole = table.batch(rows)
    batch = _cut(whole, removed_B, spec, training)
    learnt_tokens = max(1, int((batch.labels_BK != IGNORED).sum()))
    parts = list(_passes(batch.lengths_B[own_rows(len(rows))], resources))
    if len(parts) == 1 and len(parts[0]) == len(rows):
        return [batch], learnt_tokens
    first = own_rows(len(rows)).start
    return [_cut(whole.rows(first + part), removed_B[first + part], spec, training) for part in parts], learnt_tokens


def _passes(lengths_B: torch.Tensor, resources: Resources) -> Iterator[torch.Tensor]:
    """The rows of each forward pass over a worker's share."""
    if resources.micro_batch_tokens:
        return by_length(lengths_B, resources.micro_batch_tokens)
    return iter(torch.arange(len(lengths_B)).split(resources.micro_batch or len(lengths_B)))


def by_length(lengths_B: torch.Tensor, most_tokens: int) -> Iterator[torch.Tensor]:
    """Rows sorted by length, as many at a time as take up at most so many tokens with their padding, or one."""
    group: list[int] = []
    for row in lengths_B.argsort(stable=True).tolist():
        if group and (len(group) + 1) * int(lengths_B[row]) > most_tokens:
            yield torch.tensor(group)
            group = []
        group.append(row)
    yield torch.tensor(group)


def _cut(batch: Batch, removed_B: torch.Tensor, spec: StageSpec, training: Training) -> CutBatch:
    shorter = cut(batch, removed_B, spec.removal_side, spec.keep_position)
    limit = training.max_train_tokens
    return shorter if limit is None else without_long(shorter, limit)


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _backward(model: torch.nn.Module, terms: Terms) -> torch.Tensor:
    """Add up loss and gradients of all terms; workers exchange gradients once, with the last."""
    losses = []
    for term in terms:
        waits = isinstance(model, DistributedDataParallel) and term is not terms[-1]
        with model.no_sync() if waits else nullcontext():
            loss = term()
            loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _scaled_loss(model: torch.nn.Module, batch: CutBatch, training: Training, scale: float) -> torch.Tensor:
    return _loss_sum(model, batch, training) * scale


def _loss_sum(model: torch.nn.Module, batch: CutBatch, training: Training) -> torch.Tensor:
    """Summed next-token cross-entropy. Logits are made from the first learnt token on, not before."""
    device = next(model.parameters()).device
    first = max(1, int((batch.labels_BK != IGNORED).any(0).int().argmax()))
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
