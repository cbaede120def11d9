"""What a stage's model wrote, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.report import words
from orchestrator.store import Place

if TYPE_CHECKING:
    from orchestrator.method.predict import Prediction


def answer_lines(place: Place, predictions: Iterable[Prediction]) -> Iterator[str]:
    """Which model answers, then three lines a question."""
    metrics = place.tried.manifest.metrics
    yield (
        f"{place.words}: {metrics.removed_tokens} of {metrics.total_tokens} CoT tokens removed, "
        f"exact match {words.exact(metrics.exact_match)}"
    )
    for prediction in predictions:
        yield ""
        yield f"question  {prediction.question}"
        yield f"writes    {prediction.written}"
        yield f"answer    {prediction.answer or '(none: it wrote no ####)'}"


def answers_document(place: Place, predictions: Iterable[Prediction]) -> dict[str, Any]:
    """The stage, and one entry a question."""
    return {
        "stage_key": place.tried.stage.key,
        "job": place.plan.job.name,
        "trial": place.trial.name,
        "stage": place.tried.stage.index,
        "exact_match": place.tried.manifest.metrics.exact_match,
        "predictions": [asdict(prediction) for prediction in predictions],
    }
