"""Training one stage: the paper's loop. What a step learns is its objective's; the loop is the same for all.

At every optimizer step the schedule says how many CoT tokens are gone; smoothing removes a few
more from some examples; the batch is cut; the loss is the mean over all tokens after the first
separator; when a token goes, AdamW is built anew.
"""

from __future__ import annotations

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
from orchestrator.method.blocks import Observer, weights
from orchestrator.method.course import Course, Trace
from orchestrator.method.models.model import autocast
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.removal import IGNORED, Batch, CutBatch, cut, draw_removed, without_long
from orchestrator.method.resume import Moment, restore_generators
from orchestrator.method.stage import StageSpec
from orchestrator.method.tokens import TokenTable, batch_rows
from orchestrator.method.workers import Gather, is_split, told

BLOCKS = 20
"""A stage is recorded and judged at most this often, ..."""
BLOCKS_PER_REMOVAL = 10
"""... under the adaptive schedule also this often for every token it removes."""
KEEP_STEPS = 10
"""Inside a block a snapshot is offered every ten steps."""


@dataclass(frozen=True)
class Progress:
    """The place of an attempt in its stage, for the display."""

    step: int
    removed_tokens: int


@dataclass(frozen=True)
class Step:
    """A step of a stage. ``step`` counts optimizer steps over the whole chain."""

    spec: StageSpec
    step: int
    removed_tokens: int


Terms = Sequence[Callable[[], torch.Tensor]]
"""The terms of a step's loss: each makes one forward pass when it is called."""
Objective = Callable[[torch.nn.Module, TokenTable, np.ndarray, Step, Training], Terms]
"""The mean loss of a model over the given rows, as far as it is this worker's: over all workers together the
mean of what each adds up is the mean over the batch."""


@dataclass(frozen=True)
class StageRun:
    """One attempt of a stage: what is trained, on which examples, and who looks on."""

    model: PreTrainedModel
    """The model, which is trained in place."""
    optimizer: Optimizer
    spec: StageSpec
    table: TokenTable
    """The training examples as tokens."""
    training: Training
    observer: Observer | None
    """The measuring and judging, for all workers. None on every worker but the first."""
    watch: Callable[[Progress], None] = lambda progress: None
    """A display, called at the beginning and after every block."""
    objective: Objective | None = None
    """The loss of a step. Default: ``removal_loss``."""
    begin: Moment | None = None
    """The moment to go on from; model and optimizer hold its weights and state. Default: the stage's beginning."""
    keep: Callable[[Callable[[], Moment]], None] = lambda now: None
    """The offer of a snapshot, after every block but the last and within long ones. It may raise."""
    gather: Gather | None = None
    """The whole model, for weights that are split over the workers."""


def train_stage(run: StageRun) -> Trace:
    """Train a model in place through one stage, to its end or to the block that its judge stops it at."""
    model, optimizer, spec, training = run.model, run.optimizer, run.spec, run.training
    begin, objective = run.begin or Moment(), run.objective or removal_loss
    parallel = _parallel(model, spec)
    model.train()
    _begin_generators(model, spec, begin)
    if spec.warmup_steps and not begin.generators:
        optimizer.reset()  # a restart; a resume keeps its moments
    course = Course.at(begin, spec, run.table, training)
    run.watch(Progress(course.steps, course.removed_tokens))
    size, first, left = len(run.table), spec.first_step + begin.steps, spec.steps - begin.steps
    for at, rows in enumerate(batch_rows(size, training.batch_size, spec.seed, first, left), first):
        step = at - spec.first_step
        course.consumed.add(rows.tobytes())
        if course.removal_is_due(step):
            course.remove()
            whole = run.gather() if run.gather else model  # collective, so on every worker
            if run.observer:
                course.after_removal.append(run.observer.after_removal(whole, spec, at, course.removed_tokens))
            if training.reset_optimizer:
                optimizer.reset()
        terms = objective(parallel, run.table, rows, Step(spec, at, course.removed_tokens), training)
        loss = _backward(parallel, terms)
        course.steps = step + 1
        in_block = course.steps % block_steps(spec)
        ends_block = in_block == 0 or course.steps == spec.steps
        before = [weight.clone() for weight in weights(optimizer)] if ends_block else []
        course.meter.add(loss, optimizer.step(_rate(spec, step)))
        if ends_block:
            _end_block(run, course, before)
            if course.is_over:
                break
        if course.steps < spec.steps and (ends_block or in_block % KEEP_STEPS == 0):
            run.keep(partial(course.moment, model.device))
    return course.trace()


def _end_block(run: StageRun, course: Course, before: list[torch.Tensor]) -> None:
    """Record a block, measure it and let the judge speak. ``before``: the weights before its last update."""
    steps = course.meter.close(run.optimizer, before)
    run.watch(Progress(course.steps, course.removed_tokens))
    course.record_loss(steps)
    whole = run.gather() if run.gather else run.model
    if run.observer:
        course.blocks.append(run.observer.block(whole, run.spec, course.steps, course.removed_tokens, steps))
    course.finding = told(run.observer.judge(tuple(course.blocks)) if run.observer else None)


def _parallel(model: PreTrainedModel, spec: StageSpec) -> torch.nn.Module:
    """The model, with its gradients averaged over workers that each have all of it."""
    if ranked()[1] == 1 or is_split(model):
        return model
    # An emulator has no use for its network's last layer.
    unused = spec.kind in ("thought_emulation", "coupling")
    return DistributedDataParallel(model, find_unused_parameters=unused)


def _begin_generators(model: PreTrainedModel, spec: StageSpec, begin: Moment) -> None:
    """Dropout, the same after a resume."""
    rank, _ = ranked()
    torch.manual_seed(_mixed(spec.seed, spec.first_step) + rank)
    if begin.generators:
        restore_generators(begin.generators[rank], model.device)


def _rate(spec: StageSpec, step: int) -> float:
    """The share of the learning rate at a step of the stage."""
    first = int(spec.steps * (1 - spec.cooldown))
    share = spec.rate_from + (spec.rate_to - spec.rate_from) * max(0, step - first) / (spec.steps - first)
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
    labels = _sent(batch.labels_BK[:, first:], device)
    with autocast(device, training):
        logits = model(
            input_ids=_sent(batch.tokens_BK[:, :-1], device),
            attention_mask=_sent(batch.attention_mask[:, :-1], device),
            position_ids=_sent(batch.positions_BK[:, :-1], device),
            logits_to_keep=labels.shape[1],
            use_cache=False,
        ).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def _sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To a GPU from pinned memory: the copy runs beside the step before it, for which the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
