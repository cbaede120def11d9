"""Reads off a stage's hidden states what its CoT would have written."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.commands.predict import TEACHER, TrainedStage, removed_by
from orchestrator.config import MultiplicationTask
from orchestrator.errors import InputError, Problem
from orchestrator.files import replace_file
from orchestrator.report.heatmap import ProbeReport
from orchestrator.results.find import Place
from orchestrator.store import StageStore
from orchestrator.tasks import Split

if TYPE_CHECKING:
    from orchestrator.method.probing.linear_probe import Probed
    from orchestrator.method.tokens import TokenTable


def probe_stage(place: Place, store: StageStore, examples: int) -> ProbeReport:
    """Probe a stage's model for what its CoT would have written. Raises ``InputError`` if that is not known."""
    if not isinstance(place.trial.job.task, MultiplicationTask):
        found = f"is a {place.trial.job.task.type} task, whose intermediate results are not known"
        raise InputError(Problem("PRB001", place.words, found, "probe a stage of a multiplication job"))
    if place.tried.stage.spec.kind != "train":
        found = "is no single network that answers; a probe reads one"
        raise InputError(Problem("PRB003", place.words, found, f"probe {TEACHER}"))
    trained = TrainedStage.load(place, store)
    from orchestrator.method.probing.intermediates import intermediates
    from orchestrator.method.probing.linear_probe import Probed, position_names, probe_scores
    from orchestrator.trials.data import prepare_data

    data, removed = prepare_data(place.trial.job, store), removed_by(place)

    def probed(split: Split, table: TokenTable, size: int) -> Probed:
        rows = range(min(size, len(table)))
        return Probed(table, rows, intermediates(e.question for e in islice(data.task.examples(split), len(rows))))

    learn, score = probed("train", data.train, examples), probed("validation", data.validation, len(data.validation))
    scores = probe_scores(trained.model, learn, score, removed)
    return ProbeReport(place.words, position_names(score, removed, trained.tokenizer), scores)


def write_probe(report: ProbeReport, folder: Path, name: str) -> tuple[Path, Path]:
    """Write the scores as CSV and as a picture, over earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    csv, png = folder / f"{name}.csv", folder / f"{name}.png"
    replace_file(csv, report.csv())
    report.png(png)
    return csv, png
