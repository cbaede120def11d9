"""Runs one stage of a trial, alone or as one worker of several: train, judge, measure, commit. With no Ray."""

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
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.config import Job, ScratchModel
from orchestrator.failpoints import failpoint
from orchestrator.method.blocks import Observer
from orchestrator.method.course import Trace
from orchestrator.method.evaluate import Evaluator, Removed, Speed
from orchestrator.method.icot_kd.distil import TaughtEvaluator, begin_part, taught_loss
from orchestrator.method.models.model import initial_model, save_weights, set_attention, stage_model
from orchestrator.method.optimizer import Optimizer
from orchestrator.method.stage import PASSED, StageMetrics, StageSpec
from orchestrator.method.tokens import TokenTable
from orchestrator.method.train import Progress, StageRun, removal_loss, train_stage
from orchestrator.method.workers import Gather, split, told
from orchestrator.plan import PlannedStage
from orchestrator.stability import Judgement
from orchestrator.store import Claim, Manifest, StageStore
from orchestrator.tasks import Task
from orchestrator.trials.chain import Chain
from orchestrator.trials.data import JobData
from orchestrator.trials.judging import Answers, StageJudge, expected
from orchestrator.trials.snapshot import Keeper

T = TypeVar("T")
OPTIMIZER_FILE = "optimizer.safetensors"
WAIT_SECONDS = 0.5
WORST_LOSS = 1e9
"""Stands for a loss that is not finite: records hold plain JSON numbers."""


def evaluator(job: Job, task: Task, tokenizer: PreTrainedTokenizerBase, table: TokenTable) -> Evaluator:
    """What measures the job's models on some of the task's examples."""
    token_is_symbol = isinstance(job.model, ScratchModel) and task.exact
    return Evaluator(table, tokenizer, task.is_correct, job.evaluation, token_is_symbol=token_is_symbol)


@dataclass(frozen=True)
class _Position:
    """A model and its optimizer, as they stand at the end of the stage ``key``."""

    key: str | None
    model: PreTrainedModel
    optimizer: Optimizer
    gather: Gather


@dataclass(frozen=True)
class _End:
    """What an attempt leaves, whole: on the first worker, which commits it."""

    model: PreTrainedModel | None
    moments: dict[str, Tensor]
    trace: Trace


class StageRunner:
    """Trains, measures and commits single stages; keeps the model between consecutive ones."""

    def __init__(
        self,
        job: Job,
        data: JobData,
        store: StageStore,
        device: torch.device,
        watch: Callable[[PlannedStage, Progress], None],
        worth_it: Callable[[], bool] = lambda: True,
        drained: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job, self.data, self.store, self.device, self.watch = job, data, store, device, watch
        self.worth_it, self.drained = worth_it, drained
        self.first = not dist.is_initialized() or dist.get_rank() == 0
        self.evaluator = evaluator(job, data.task, data.tokenizer, data.validation)
        self.answers = Answers.of(data.train, self.evaluator.mark_tokens)
        self._at: _Position | None = None
        self._claim: Claim | None = None

    def committed(self, stage: PlannedStage) -> Manifest | None:
        """The stage's manifest, or None once the stage is ours to run.

        Waits while another trial trains the same stage. The first worker decides for all, and reads for all: another
        node may not see yet what was committed a moment ago.
        """
        while True:
            if self._agreed(lambda: self._claimed(stage)):
                return None
            if manifest := self._agreed(lambda: self.store.manifest(stage)):
                return manifest
            time.sleep(WAIT_SECONDS)

    def goes_on(self) -> bool:
        """The first worker decides for all."""
        return self._agreed(self.worth_it)

    def _agreed(self, decide: Callable[[], T]) -> T:
        """What the first worker decides, known to all."""
        return told(decide() if self.first else None)

    def _claimed(self, stage: PlannedStage) -> bool:
        """Take a stage on, unless it is committed. Whoever can claim it removes what killed attempts left."""
        self._claim = self.store.claim(stage.key)
        try:
            if self._claim:
                self.store.tidy(stage.key)
            ours = self._claim is not None and self.store.manifest(stage) is None
        except BaseException:
            self._release()
            raise
        if not ours:
            self._release()
        return ours

    def _release(self) -> None:
        if self._claim:
            self._claim.release()
            self._claim = None

    def run(self, stage: PlannedStage, chain: Chain) -> Manifest:
        """One attempt of a stage, from its parent's weights to its commit."""
        try:
            return self._attempt(stage, chain)
        finally:
            self._release()

    def _attempt(self, stage: PlannedStage, chain: Chain) -> Manifest:
        standing = {tried.stage.key: tried.manifest for tried in chain.standing}
        start = self._start(stage, [standing[key] for key in stage.parents])
        self._at = None  # from here on the weights are no stage's
        keeper = Keeper(self.store, stage, start.model, start.optimizer, self.drained, first=self.first)
        judge = StageJudge(stage.spec, expected(stage, chain.trial, self.answers), chain.history)
        evaluator = self._evaluator(stage.spec)
        observer = Observer(evaluator, self.job.training, self.job.stability.probe_examples, judge.after_block)
        trace = train_stage(
            StageRun(
                model=start.model,
                optimizer=start.optimizer,
                spec=stage.spec,
                table=self.data.train,
                training=self.job.training,
                observer=observer if self.first else None,
                watch=lambda progress: self.watch(stage, progress),
                objective=partial(removal_loss, resources=self.job.resources) if stage.spec.answers else taught_loss,
                begin=keeper.restored(self.data.train, self.job.training),
                keep=keeper.keep,
                gather=start.gather,
            )
        )
        end = _End(start.gather(), start.optimizer.tensors(), trace)
        ours = self._agreed(lambda: self._commit(stage, end, judge))
        keeper.forget()
        manifest = self._agreed(lambda: self.store.manifest(stage))
        if manifest is None:
            raise RuntimeError(f"stage {stage.key} vanished from {self.store.root} after its commit")
        if ours and manifest.passed:
            self._at = replace(start, key=stage.key)
        return manifest

    def _start(self, stage: PlannedStage, parents: list[Manifest]) -> _Position:
        """The parent's weights and optimizer: at hand, or from the store, or new. A part of ICoT-KD begins anew."""
        spec = stage.spec
        for key in stage.parents:
            self.store.expect(key)
        if spec.kind == "train" and self._at and self._at.key == stage.parent:
            return self._at
        for parent in parents:
            self.store.verify(parent)
        folders = [self.store.folder(parent) for parent in parents]
        if spec.kind != "train":
            model = begin_part(spec, folders, lambda: self._initial(spec), self.data.tokenizer)
        else:
            model = stage_model(self.job.model, folders[0]) if folders else self._initial(spec)
        gather = self._placed(model)
        optimizer = Optimizer(model, self.job.training)
        if spec.kind == "train" and folders:
            optimizer.load(load_file(folders[0] / OPTIMIZER_FILE))
        return _Position(None, model, optimizer, gather)

    def _placed(self, model: PreTrainedModel) -> Gather:
        """Put a model, or this worker's share of it, on its device."""
        set_attention(model, self.device, self.job.training)
        if self.job.resources.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if self.job.resources.shard:
            return split(model, self.device)
        model.to(self.device)
        return lambda: model

    def _initial(self, spec: StageSpec) -> PreTrainedModel:
        return initial_model(self.job.model, self.data.tokenizer, self.data.longest, spec.seed)

    def _evaluator(self, spec: StageSpec) -> Evaluator | TaughtEvaluator:
        if spec.answers:
            return self.evaluator
        return TaughtEvaluator(self.data.validation, self.evaluator.size, self.job.evaluation.batch_size)

    def _commit(self, stage: PlannedStage, end: _End, judge: StageJudge) -> bool:
        """Whether the stage that stands is this attempt."""
        judgement = judge.at_end(end.trace)
        if judgement.verdict in PASSED:
            metrics = self._measured(stage, end.model, end.trace, judgement)
            judgement = _last_look(end, metrics) or judgement
        for key in stage.parents:
            self.store.expect(key)
        attempt = self.store.begin(stage.key)
        with self.store.writing(attempt):
            if judgement.verdict in PASSED:
                save_weights(end.model, self.data.tokenizer, attempt)
                failpoint("commit.weights")
                if stage.spec.kind == "train":
                    save_file(end.moments, attempt / OPTIMIZER_FILE)
                failpoint("commit.optimizer")
            else:
                metrics = _no_metrics(stage, end.trace, judgement)
            manifest = self.store.commit(stage, attempt, judgement.verdict, metrics, judgement.reason)
        return manifest.attempt == attempt.name

    def _measured(
        self, stage: PlannedStage, model: PreTrainedModel, trace: Trace, judgement: Judgement
    ) -> StageMetrics:
        started = time.perf_counter()
        spec, evaluation = stage.spec, self.job.evaluation
        removed = Removed(spec.removed_to, spec.removal_side, spec.keep_position)
        accuracy = self._evaluator(spec).accuracy(model, removed)
        one_by_one = batched = Speed(0.0, 0.0)
        if spec.answers:
            one_by_one = self.evaluator.speed(model, removed, 1, evaluation.speed_examples)
            batched = self.evaluator.speed(model, removed, evaluation.speed_batch, evaluation.speed_batch)
        return StageMetrics(
            removed_tokens=spec.removed_to,
            total_tokens=spec.total_tokens,
            exact_match=accuracy.exact_match,
            examples=accuracy.examples,
            validation_loss=accuracy.loss,
            generated_tokens=batched.generated_tokens,
            examples_per_second=one_by_one.examples_per_second,
            examples_per_second_batched=batched.examples_per_second,
            after_removal=trace.after_removal,
            train_loss=trace.train_loss,
            train_seconds=trace.seconds,
            evaluate_seconds=time.perf_counter() - started,
            steps_taken=trace.steps,
            blocks=trace.blocks,
            detector=judgement.detector,
        )


def _last_look(end: _End, metrics: StageMetrics) -> Judgement | None:
    """Nothing that is not a number is ever committed as good, whenever it came in."""
    if not math.isfinite(metrics.validation_loss):
        return Judgement("diverged", "the validation loss is not finite", "A1")
    tensors = [*end.model.parameters(), *end.moments.values()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        return Judgement("diverged", "a weight or a moment of AdamW is not finite", "A1")
    return None


def _no_metrics(stage: PlannedStage, trace: Trace, judgement: Judgement) -> StageMetrics:
    return StageMetrics(
        removed_tokens=stage.spec.removed_to,
        total_tokens=stage.spec.total_tokens,
        exact_match=0.0,
        examples=0,
        validation_loss=WORST_LOSS,
        generated_tokens=0.0,
        examples_per_second=0.0,
        examples_per_second_batched=0.0,
        after_removal=trace.after_removal,
        train_loss=trace.train_loss,
        train_seconds=trace.seconds,
        evaluate_seconds=0.0,
        steps_taken=trace.steps,
        blocks=trace.blocks,
        detector=judgement.detector,
    )
