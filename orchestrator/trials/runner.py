"""Runs single stages of a trial, alone or as one worker of several: adopt, or train, judge, measure and commit.

Without Ray. Where there are several workers, the first decides and commits for all; each trains its share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.config import Job
from orchestrator.failpoints import failpoint
from orchestrator.method.blocks import Observer
from orchestrator.method.course import Trace
from orchestrator.method.icot_kd.distil import TaughtEvaluator, begin_part, taught_loss
from orchestrator.method.models.model import initial_model, save_weights, set_attention, stage_model
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.stage import PASSED
from orchestrator.method.train import Progress, StageRun, removal_loss, train_stage
from orchestrator.method.workers import Gather, split, told
from orchestrator.plan import PlannedStage
from orchestrator.stability import Judgement
from orchestrator.store import Claim, Manifest, StageStore, tidy
from orchestrator.trials.chain import Chain
from orchestrator.trials.data import JobData
from orchestrator.trials.judging import Answers, StageJudge, expected
from orchestrator.trials.measuring import NOT_MEASURED, Measurement, attempt_record, evaluator, measure
from orchestrator.trials.snapshot import Keeper

T = TypeVar("T")
OPTIMIZER_FILE = "optimizer.safetensors"
WAIT_SECONDS = 0.5
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workplace:
    """The things a trial's stages are made with."""

    job: Job
    """The trial's own job."""
    data: JobData
    store: StageStore
    device: torch.device = CPU


@dataclass(frozen=True)
class Hooks:
    """The functions through which a runner talks to its surroundings."""

    watch: Callable[[PlannedStage, Progress], None] = lambda stage, progress: None
    """Told some twenty times a stage where it is."""
    goes_on: Callable[[], bool] = lambda: True
    """Asked before every stage, on the first worker, whether the trial is worth it."""
    drained: Callable[[], bool] = lambda: False
    """Asked at every chance of a snapshot, on the first worker, whether the trial has to leave its node."""


@dataclass(frozen=True)
class _Position:
    """A model and its optimizer, as they stand at the end of the stage ``key``; None in the middle of one."""

    key: str | None
    model: PreTrainedModel
    optimizer: Optimizer
    gather: Gather


@dataclass(frozen=True)
class _End:
    """All that an attempt leaves, whole: on the first worker, which commits it."""

    model: PreTrainedModel | None
    moments: dict[str, Tensor]
    trace: Trace

    def flaw(self, measured: Measurement) -> str:
        """Return in words that something is not finite; nothing if all is."""
        if not math.isfinite(measured.validation_loss):
            return "the validation loss is not finite"
        tensors = [*self.model.parameters(), *self.moments.values()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            return "a weight or a moment of AdamW is not finite"
        return ""


class StageRunner:
    """The acting side of a walk (``walk.Runner``). Keeps the model between consecutive stages."""

    def __init__(self, place: Workplace, hooks: Hooks | None = None) -> None:
        self.job, self.data, self.store, self.device = place.job, place.data, place.store, place.device
        self.hooks = hooks or Hooks()
        self.first = not dist.is_initialized() or dist.get_rank() == 0
        self.evaluator = evaluator(self.job, self.data.task, self.data.tokenizer, self.data.validation)
        self.taught_evaluator = TaughtEvaluator(
            self.data.validation, self.evaluator.size, self.job.evaluation.batch_size
        )
        self.answers = Answers.of(self.data.train, self.evaluator.mark_tokens)
        self._at: _Position | None = None
        self._claim: Claim | None = None

    def goes_on(self) -> bool:
        """Return whether the trial is worth another stage."""
        return self._agreed(self.hooks.goes_on)

    def adopt(self, stage: PlannedStage) -> Manifest | None:
        """Return the stage's manifest, or None once this trial has claimed the stage. Waits while another trains it."""
        while True:
            if self._agreed(lambda: self._claimed(stage)):
                return None
            if manifest := self._agreed(lambda: self.store.manifest(stage)):
                return manifest
            time.sleep(WAIT_SECONDS)

    def attempt(self, stage: PlannedStage, chain: Chain) -> Manifest:
        """Train a stage from its parent's weights to its commit. Returns the manifest that stands."""
        try:
            at = self._start(stage, chain)
            self._at = None  # from its first step on the model is at the end of no stage
            keeper = Keeper(self.store, stage, at.model, at.optimizer, self.hooks.drained, first=self.first)
            judge = StageJudge(stage.spec, expected(stage, chain.trial, self.answers), chain.history)
            by_itself = stage.spec.answers
            by = self.evaluator if by_itself else self.taught_evaluator
            observer = Observer(by, self.job.training, self.job.stability.probe_examples, judge.after_block)
            trace = train_stage(
                StageRun(
                    model=at.model,
                    optimizer=at.optimizer,
                    spec=stage.spec,
                    table=self.data.train,
                    training=self.job.training,
                    observer=observer if self.first else None,
                    watch=lambda progress: self.hooks.watch(stage, progress),
                    objective=partial(removal_loss, resources=self.job.resources) if by_itself else taught_loss,
                    begin=keeper.restored(self.data.train, self.job.training),
                    keep=keeper.keep,
                    gather=at.gather,
                )
            )
            end = _End(at.gather(), at.optimizer.tensors(), trace)
            stands = self._agreed(lambda: self._commit(stage, end, judge))
            keeper.forget()
            manifest = self._agreed(lambda: self.store.manifest(stage))
            if manifest is None:
                raise RuntimeError(f"stage {stage.key} vanished from {self.store.root} after its commit")
            if stands and manifest.passed:
                self._at = replace(at, key=stage.key)
            return manifest
        finally:
            self._release()

    def _start(self, stage: PlannedStage, chain: Chain) -> _Position:
        """Return model and optimizer at the end of the stage's parents: at hand, from the store, or new."""
        spec, job = stage.spec, self.job
        for key in stage.parents:
            self.store.expect(key)
        if spec.kind == "train" and self._at and self._at.key == stage.parent:
            return self._at
        standing = {attempt.stage.key: attempt.manifest for attempt in chain.standing}
        for key in stage.parents:
            self.store.verify(standing[key])
        parents = [self.store.folder(standing[key]) for key in stage.parents]
        initial = partial(initial_model, job.model, self.data.tokenizer, self.data.longest, spec.seed)
        if spec.kind != "train":
            model = begin_part(spec, parents, initial, self.data.tokenizer)
        else:
            model = stage_model(job.model, parents[0]) if parents else initial()
        set_attention(model, self.device, job.training)
        if job.resources.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if not job.resources.shard:
            model.to(self.device)
        gather: Gather = split(model, self.device) if job.resources.shard else lambda: model
        optimizer = Optimizer(model, job.training)
        if spec.kind == "train" and parents:
            optimizer.load(load_file(parents[0] / OPTIMIZER_FILE))
        return _Position(None, model, optimizer, gather)

    def _commit(self, stage: PlannedStage, end: _End, judge: StageJudge) -> bool:
        """Judge an attempt, measure it if it passes, and commit it. Returns whether it is the one that stands."""
        judgement, measured = judge.at_end(end.trace), NOT_MEASURED
        if judgement.verdict in PASSED:
            by_itself = stage.spec.answers
            by = self.evaluator if by_itself else self.taught_evaluator
            measured = measure(end.model, stage.spec, by, self.job)
            # A number that is not finite may have come in after the last block, where no detector sees it.
            if flaw := end.flaw(measured):
                judgement, measured = Judgement("diverged", flaw, "A1"), NOT_MEASURED
        for key in stage.parents:
            self.store.expect(key)
        folder = self.store.begin(stage.key)
        with self.store.writing(folder):
            if judgement.verdict in PASSED:  # a failed attempt leaves its record alone
                save_weights(end.model, self.data.tokenizer, folder)
                failpoint("commit.weights")
                if stage.spec.kind == "train":
                    save_file(end.moments, folder / OPTIMIZER_FILE)
                failpoint("commit.optimizer")
            record = attempt_record(stage.spec, end.trace, judgement, measured)
            manifest = self.store.commit(stage, folder, judgement.verdict, record, judgement.reason)
        return manifest.attempt == folder.name

    def _agreed(self, decide: Callable[[], T]) -> T:
        """Return what the first worker decides, on all: another node may not see yet what was just committed."""
        return told(decide() if self.first else None)

    def _claimed(self, stage: PlannedStage) -> bool:
        """Claim a stage, unless it is committed, and remove what killed attempts left of it."""
        self._claim = self.store.claim(stage.key)
        try:
            if self._claim:
                tidy(self.store, stage.key)
            claimed = self._claim is not None and self.store.manifest(stage) is None
        except BaseException:
            self._release()
            raise
        if not claimed:
            self._release()
        return claimed

    def _release(self) -> None:
        if self._claim:
            self._claim.release()
            self._claim = None
