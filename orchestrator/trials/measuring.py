"""Measures the model at the end of an attempt, and makes the attempt's record."""

from __future__ import annotations

import time
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.config import Job, ScratchModel
from orchestrator.method.course import Trace
from orchestrator.method.evaluate import Evaluator, Removed, Speed
from orchestrator.method.icot_kd.distil import TaughtEvaluator
from orchestrator.method.stage import StageMetrics, StageSpec
from orchestrator.method.tokens import TokenTable
from orchestrator.stability import Judgement
from orchestrator.tasks import Task

WORST_LOSS = 1e9
"""Stands for a loss that is not finite: records hold plain JSON numbers."""


def evaluator(job: Job, task: Task, tokenizer: PreTrainedTokenizerBase, table: TokenTable) -> Evaluator:
    """Return what measures the job's models on some of the task's examples."""
    token_is_symbol = isinstance(job.model, ScratchModel) and task.exact
    return Evaluator(table, tokenizer, task.is_correct, job.evaluation, token_is_symbol=token_is_symbol)


@dataclass(frozen=True)
class Measurement:
    """The figures of a model on validation examples."""

    exact_match: float
    examples: int
    validation_loss: float
    one_by_one: Speed
    """The speed of greedy decoding, one example at a time; 0 for a model that writes no answers by itself."""
    batched: Speed
    """The speed of greedy decoding in batches."""
    seconds: float
    """The seconds that measuring took."""


NOT_MEASURED = Measurement(0.0, 0, WORST_LOSS, Speed(0.0, 0.0), Speed(0.0, 0.0), 0.0)
"""The figures of an attempt that failed: its model is worth no measurement."""


def measure(model: PreTrainedModel, spec: StageSpec, by: Evaluator | TaughtEvaluator, job: Job) -> Measurement:
    """Return the figures of a stage's model, with the stage's CoT tokens removed."""
    started = time.perf_counter()
    removed = Removed(spec.removed_to, spec.removal_side, spec.keep_position)
    accuracy = by.accuracy(model, removed)
    one_by_one = batched = Speed(0.0, 0.0)
    if isinstance(by, Evaluator):
        one_by_one = by.speed(model, removed, 1, job.evaluation.speed_examples)
        batched = by.speed(model, removed, job.evaluation.speed_batch, job.evaluation.speed_batch)
    seconds = time.perf_counter() - started
    return Measurement(accuracy.exact_match, accuracy.examples, accuracy.loss, one_by_one, batched, seconds)


def attempt_record(spec: StageSpec, trace: Trace, judgement: Judgement, measured: Measurement) -> StageMetrics:
    """Return the record of an attempt: what training left on the way, what judged it, what was measured."""
    return StageMetrics(
        removed_tokens=spec.removed_to,
        total_tokens=spec.total_tokens,
        exact_match=measured.exact_match,
        examples=measured.examples,
        validation_loss=measured.validation_loss,
        generated_tokens=measured.batched.generated_tokens,
        examples_per_second=measured.one_by_one.examples_per_second,
        examples_per_second_batched=measured.batched.examples_per_second,
        after_removal=trace.after_removal,
        train_loss=trace.train_loss,
        train_seconds=trace.seconds,
        evaluate_seconds=measured.seconds,
        steps_taken=trace.steps,
        blocks=trace.blocks,
        detector=judgement.detector,
    )
