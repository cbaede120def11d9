"""The answers of a stage's model, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator import labels
from orchestrator.config import MultiplicationTask, Task
from orchestrator.results.find import Place
from orchestrator.shown import visible

if TYPE_CHECKING:
    from orchestrator.method.predict import Prediction


def answer_lines(place: Place, predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yield which model answers, then a few lines a question."""
    metrics = place.tried.manifest.metrics
    yield (
        f"{place.words}: {metrics.removed_tokens} of {metrics.total_tokens} CoT tokens removed, "
        f"exact match {labels.exact(metrics.exact_match)}"
    )
    for prediction in predictions:
        yield ""
        yield f"question  {visible(prediction.question)}"
        yield f"writes    {visible(prediction.written)}"
        yield f"answer    {visible(prediction.answer or '(none: it wrote no ####)')}"
        if note := _unlike_training(place.trial.job.task, prediction.question):
            yield f"note      {note}"


def _unlike_training(task: Task, question: str) -> str:
    """Say how a question is unlike those of training; the model answers it all the same."""
    asked = tuple(len(factor.split()) for factor in question.split("*"))
    if not isinstance(task, MultiplicationTask) or asked == task.digits:
        return ""
    if len(asked) != len(task.digits):
        return "the model was trained on two numbers with a * between them"
    trained, this = (" x ".join(map(str, lengths)) for lengths in (task.digits, asked))
    return f"the model was trained on {trained} digits, this is {this}"


def answers_document(place: Place, predictions: Iterable[Prediction]) -> dict[str, Any]:
    """Return the stage, and one entry a question."""
    return {
        "stage_key": place.tried.stage.key,
        "job": place.plan.job.name,
        "trial": place.trial.name,
        "stage": place.tried.stage.index,
        "exact_match": place.tried.manifest.metrics.exact_match,
        "predictions": [
            {**asdict(prediction), "note": _unlike_training(place.trial.job.task, prediction.question)}
            for prediction in predictions
        ],
    }
