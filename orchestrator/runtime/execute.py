"""A trial in one process (or one worker of several), with no Ray: walk the stages, adopt or train."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.config import Job
from orchestrator.identity import digest, non_default
from orchestrator.method.data import TokenTable, token_table
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.model import initial_model, load_tokenizer, load_weights, place, save_weights
from orchestrator.method.stage import StageMetrics
from orchestrator.method.train import Diverged, Progress, Trace, train_stage
from orchestrator.plan import PlannedStage, Trial
from orchestrator.store import Manifest, StageStore
from orchestrator.tasks import Task, make_task

DATA_FORMAT = 1
WORST_LOSS = 1e9
"""Stands for a loss that is not finite: records hold plain JSON numbers."""


@dataclass(frozen=True)
class JobData:
    """The task, tokenizer and tokens of a job."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    train: TokenTable
    validation: TokenTable

    @property
    def total_tokens(self) -> int:
        return max(self.train.total_tokens, self.validation.total_tokens)


def prepare_data(job: Job, store: StageStore) -> JobData:
    """Tokenize the job's data once; later calls, and workers, map the same files."""
    task = make_task(job.task)
    tokenizer = load_tokenizer(job.model, task.symbols)
    identity = {"format": DATA_FORMAT, "task": non_default(job.task), "vocabulary": digest(tokenizer.get_vocab())}
    folder = store.root / "data" / digest(identity)
    train, validation = (
        token_table(task, split, tokenizer, folder / f"{split}.arrow") for split in ("train", "validation")
    )
    return JobData(task, tokenizer, train, validation)


class Runner(Protocol):
    """What a walk needs: what is committed, and a way to run what is not."""

    def committed(self, stage: PlannedStage) -> Manifest | None: ...

    def run(self, stage: PlannedStage, parent: Manifest | None) -> Manifest: ...


def walk(trial: Trial, runner: Runner) -> Iterator[tuple[PlannedStage, Manifest]]:
    """Take a trial through its stages: adopt what is committed, run what is not, stop at a diverged one."""
    manifest = None
    for stage in trial.stages:
        manifest = runner.committed(stage) or runner.run(stage, manifest)
        yield stage, manifest
        if manifest.verdict != "good":
            return


class StageRunner:
    """Trains, measures and commits single stages; keeps the model between consecutive ones."""

    def __init__(
        self,
        job: Job,
        data: JobData,
        store: StageStore,
        device: torch.device,
        watch: Callable[[PlannedStage, Progress], None],
    ) -> None:
        self.job, self.data, self.store, self.device, self.watch = job, data, store, device, watch
        self.first = not dist.is_initialized() or dist.get_rank() == 0
        self.evaluator = Evaluator(data.validation, data.tokenizer, data.task.is_correct, job.evaluation)
        self._model: tuple[str, PreTrainedModel] | None = None

    def committed(self, stage: PlannedStage) -> Manifest | None:
        """The stage's manifest if the first worker sees it: all workers adopt a stage, or none does."""
        seen = [bool(self.store.manifest(stage))] if self.first else [False]
        if dist.is_initialized():
            dist.broadcast_object_list(seen, src=0)
        return self.store.manifest(stage) if seen[0] else None

    def run(self, stage: PlannedStage, parent: Manifest | None) -> Manifest:
        """One attempt of a stage, from its parent's weights to its commit."""
        model = self._starting_model(stage, parent)
        try:
            trace = train_stage(
                model,
                stage.spec,
                self.data.train,
                self.job.training,
                self.evaluator if self.first else None,
                lambda progress: self.watch(stage, progress),
            )
        except Diverged:
            return self._commit(stage, None, None)
        self._model = (stage.key, model)
        return self._commit(stage, model, trace)

    def _starting_model(self, stage: PlannedStage, parent: Manifest | None) -> PreTrainedModel:
        if self._model and self._model[0] == stage.parent:
            return self._model[1]
        if parent is None:
            longest = max(self.data.train.longest, self.data.validation.longest)
            model = initial_model(self.job.model, self.data.tokenizer, longest, stage.spec.seed)
        else:
            self.store.verify(parent)
            model = load_weights(self.store.folder(parent))
        return place(model, self.device, self.job.training)

    def _commit(self, stage: PlannedStage, model: PreTrainedModel | None, trace: Trace | None) -> Manifest:
        """The first worker measures and commits; all others wait for it and read the manifest."""
        if self.first:
            attempt = self.store.begin(stage.key)
            metrics = self._measured(stage, model, trace) if model and trace else None
            if metrics and math.isfinite(metrics.answer_loss):
                save_weights(model, self.data.tokenizer, attempt)
                self.store.commit(stage, attempt, "good", metrics)
            else:
                self.store.commit(stage, attempt, "diverged", _no_metrics(stage))
        if dist.is_initialized():
            dist.barrier()
        manifest = self.store.manifest(stage)
        if manifest is None:
            raise RuntimeError(f"stage {stage.key} vanished from {self.store.root} after its commit")
        return manifest

    def _measured(self, stage: PlannedStage, model: PreTrainedModel, trace: Trace) -> StageMetrics:
        started = time.perf_counter()
        spec, evaluation = stage.spec, self.job.evaluation
        removed = Removed(spec.removed_to, spec.removal_side, spec.keep_position)
        accuracy = self.evaluator.accuracy(model, removed)
        one_by_one = self.evaluator.speed(model, removed, 1, evaluation.speed_examples)
        batched = self.evaluator.speed(model, removed, evaluation.speed_batch, evaluation.speed_batch)
        return StageMetrics(
            removed_tokens=spec.removed_to,
            total_tokens=spec.total_tokens,
            exact_match=accuracy.exact_match,
            examples=accuracy.examples,
            answer_loss=accuracy.answer_loss,
            generated_tokens=accuracy.generated_tokens,
            examples_per_second=one_by_one,
            examples_per_second_batched=batched,
            after_removal=trace.after_removal,
            train_loss=trace.train_loss,
            train_seconds=trace.seconds,
            evaluate_seconds=time.perf_counter() - started,
        )


def _no_metrics(stage: PlannedStage) -> StageMetrics:
    return StageMetrics(
        removed_tokens=stage.spec.removed_to,
        total_tokens=stage.spec.total_tokens,
        exact_match=0.0,
        examples=0,
        answer_loss=WORST_LOSS,
        generated_tokens=0.0,
        examples_per_second=0.0,
        examples_per_second_batched=0.0,
        train_seconds=0.0,
        evaluate_seconds=0.0,
    )
