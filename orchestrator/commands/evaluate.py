"""Measures a stage's model on any examples of its task."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.commands.predict import TrainedStage, removed_by
from orchestrator.errors import InputError, Problem
from orchestrator.report.evaluated import Evaluated
from orchestrator.results.find import Place
from orchestrator.store import StageStore
from orchestrator.tasks import Split, make_task

if TYPE_CHECKING:
    from orchestrator.method.tokens import TokenTable


def evaluate_stage(place: Place, store: StageStore, split: Split, limit: int | None) -> Evaluated:
    """Measure a stage's model on the first ``limit`` examples of a split (default: all), on a GPU if there is one.

    Raises ``InputError`` for examples that are longer than the model.
    """
    trained, job = TrainedStage.load(place, store), place.trial.job
    import torch

    from orchestrator.method.models.model import set_attention
    from orchestrator.trials.measuring import evaluator

    table, removed = _examples(trained, split, limit), removed_by(place)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_attention(trained.model, device, job.training)
    of_all = job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"examples": None})})
    measured = evaluator(of_all, make_task(job.task), trained.tokenizer, table)
    accuracy = measured.accuracy(trained.model.to(device), removed, limit)
    return Evaluated(
        stage=place.words,
        stage_key=place.tried.stage.key,
        split=split,
        examples=accuracy.examples,
        removed_tokens=removed.tokens,
        total_tokens=place.tried.manifest.metrics.total_tokens,
        exact_match=accuracy.exact_match,
    )


def _examples(trained: TrainedStage, split: Split, limit: int | None) -> TokenTable:
    """The tokens of a split, read anew: no key says what a test split holds."""
    from orchestrator.method.models.hub import positions_of
    from orchestrator.method.tokens import token_table

    task, removed = make_task(trained.place.trial.job.task), removed_by(trained.place)
    with TemporaryDirectory() as folder:
        table = token_table(task, split, trained.tokenizer, Path(folder) / "examples.arrow")
    most, gone = positions_of(trained.model.config), 0 if removed.keep_position else removed.tokens
    left = (table.lengths - (table.cot_end - table.cot_start).clip(max=gone))[:limit]
    if left.max() > most:
        row = int(left.argmax())
        found = f"takes {left[row]} tokens, {trained.place.words} has {most} positions"
        raise InputError(Problem("EVA001", task.place(split, row), found, "leave such examples out of the split"))
    return table
