"""What is done with a trained stage: ask it, measure it, take it home, look inside."""

from __future__ import annotations

import glob
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.config import MultiplicationTask, job_toml
from orchestrator.errors import InputError, Problem
from orchestrator.partial import abandoned, partial
from orchestrator.report.card import Card
from orchestrator.report.evaluated import Evaluated
from orchestrator.report.heatmap import ProbeReport
from orchestrator.store import Manifest, Place, StageStore, frontier, is_fork, replace_file, saved_job
from orchestrator.tasks import Split, make_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from orchestrator.method.data import TokenTable
    from orchestrator.method.evaluate import Removed
    from orchestrator.method.predict import Prediction
    from orchestrator.method.probe import Probed

_TEACHER = "a stage of its teacher (the trial's stage 0 is one) or of another method"
"""What of ICoT-KD, and beside it, is one network that answers."""


@dataclass(frozen=True)
class TrainedStage:
    """A committed stage with its weights in memory, on the CPU in fp32."""

    place: Place
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, place: Place, store: StageStore) -> TrainedStage:
        """Raises ``StoreError`` if a file is not what was committed, ``InputError`` for one that answers nothing."""
        spec = place.tried.stage.spec
        if not spec.answers:
            found = "prepares another part of ICoT-KD and answers nothing"
            raise InputError(Problem("PRE003", place.words, found, "name the trial's last stage"))
        _quiet()
        from orchestrator.method.model import stage_model, stage_tokenizer
        from orchestrator.method.thoughts import load_coupled

        manifest = place.tried.manifest
        store.verify(manifest)
        folder = store.folder(manifest)
        model = load_coupled(folder) if spec.kind == "coupling" else stage_model(place.trial.job.model, folder)
        return cls(place, model, stage_tokenizer(folder))

    def answers(self, questions: Iterable[str]) -> Iterator[Prediction]:
        """What the stage's model writes after each question."""
        from orchestrator.method.predict import predict

        spec = self.place.tried.stage.spec
        shift = spec.removed_to if spec.keep_position else 0
        for question in questions:
            yield predict(self.model, self.tokenizer, question, shift)


def evaluate_stage(place: Place, store: StageStore, split: Split, limit: int | None) -> Evaluated:
    """Measure a stage's model on the first ``limit`` examples of a split (default: all), on a GPU if there is one.

    Raises ``InputError`` for examples that are longer than the model.
    """
    trained, job = TrainedStage.load(place, store), place.trial.job
    import torch

    from orchestrator.method.model import set_attention
    from orchestrator.runtime.execute import evaluator

    table, removed = _examples(trained, split, limit), _removed(place)
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
    from orchestrator.method.data import token_table
    from orchestrator.method.hub import positions_of

    task, removed = make_task(trained.place.trial.job.task), _removed(trained.place)
    with TemporaryDirectory() as folder:
        table = token_table(task, split, trained.tokenizer, Path(folder) / "examples.arrow")
    most, gone = positions_of(trained.model.config), 0 if removed.keep_position else removed.tokens
    left = (table.lengths - (table.cot_end - table.cot_start).clip(max=gone))[:limit]
    if left.max() > most:
        row = int(left.argmax())
        found = f"takes {left[row]} tokens, {trained.place.words} has {most} positions"
        raise InputError(Problem("EVA001", task.place(split, row), found, "leave such examples out of the split"))
    return table


def _removed(place: Place) -> Removed:
    from orchestrator.method.evaluate import Removed

    spec = place.tried.stage.spec
    return Removed(spec.removed_to, spec.removal_side, spec.keep_position)


def export_stage(place: Place, store: StageStore, folder: Path) -> None:
    """Write the stage's model, its card and its job as a folder that needs nothing of Stepwise's.

    The folder appears complete or not at all. Raises ``InputError`` if it exists.
    """
    _check_one_network(place)
    _check_free(place, folder)
    written = partial(folder)
    try:
        for left in abandoned(folder.parent, glob.escape(folder.name)):
            shutil.rmtree(left, ignore_errors=True)
        written.mkdir(parents=True)
        _write_home(TrainedStage.load(place, store), store, written)
        written.rename(folder)
    except OSError as error:
        found = f"cannot be written: {error.strerror or error}"
        raise InputError(Problem("EXP002", str(folder), found, "name another folder")) from None
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _check_one_network(place: Place) -> None:
    if place.tried.stage.spec.kind != "train":
        found = "is no single network that answers, which a pipeline needs"
        fix = f"export {_TEACHER}; `stepwise predict` asks the trial's last stage"
        raise InputError(Problem("EXP004", place.words, found, fix))


def _check_free(place: Place, folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise InputError(Problem("EXP001", str(folder), "exists already", "name a new folder"))
    if place.tried.stage.spec.keep_position and place.tried.stage.spec.removed_to:
        found = "was trained with schedule.keep_position; no pipeline gives a model such positions"
        raise InputError(Problem("EXP003", place.words, found, "`stepwise predict` does"))


def _write_home(trained: TrainedStage, store: StageStore, folder: Path) -> None:
    from orchestrator.method.encoding import prompt_ids
    from orchestrator.method.home import pipeline_prompt, save_home
    from orchestrator.method.model import whole_model

    place, tokenizer = trained.place, trained.tokenizer
    metrics, separator = place.tried.manifest.metrics, tokenizer.eos_token
    cot_left = metrics.removed_tokens < metrics.total_tokens
    saved = saved_job(place.plan.job.name, store)
    question = (saved and saved.question) or next(iter(make_task(place.trial.job.task).examples("validation"))).question
    [answered] = trained.answers([question])
    save_home(
        whole_model(place.trial.job.model, store.folder(place.tried.manifest)),
        tokenizer,
        folder,
        generated_tokens=metrics.generated_tokens,
        cot_left=cot_left,
        prompt_tokens=len(prompt_ids(question, tokenizer)),
    )
    points = {point.stage_key: point for point in frontier(place.plan, store)}
    card = Card(
        place=place,
        lineage=_lineage(place.tried.manifest, store),
        point=points.get(place.tried.stage.key),
        prompt=pipeline_prompt(question, separator, cot_left=cot_left),
        written=answered.written,
        separator=separator,
        fork=is_fork(place.plan.job.name, store),
    )
    (folder / "README.md").write_text(card.text(), "utf-8")
    job = place.trial.job
    alone = job.model_copy(update={"name": f"{job.name[:52]}-reproduced"})
    (folder / "job.toml").write_text(job_toml(alone), "utf-8")


def probe_stage(place: Place, store: StageStore, examples: int) -> ProbeReport:
    """Probe a stage's model for what its CoT would have written. Raises ``InputError`` if that is not known."""
    if not isinstance(place.trial.job.task, MultiplicationTask):
        found = f"is a {place.trial.job.task.type} task, whose intermediate results are not known"
        raise InputError(Problem("PRB001", place.words, found, "probe a stage of a multiplication job"))
    if place.tried.stage.spec.kind != "train":
        found = "is no single network that answers; a probe reads one"
        raise InputError(Problem("PRB003", place.words, found, f"probe {_TEACHER}"))
    trained = TrainedStage.load(place, store)
    from orchestrator.method.intermediates import intermediates
    from orchestrator.method.probe import Probed, position_names, probe_scores
    from orchestrator.runtime.data import prepare_data

    data, removed = prepare_data(place.trial.job, store), _removed(place)

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


def _lineage(manifest: Manifest, store: StageStore) -> list[Manifest]:
    """The stage and its ancestors, as far as the store has them; the first one first."""
    line = [manifest]
    while isinstance(line[0].parent, str) and (parent := store.read(line[0].parent)):
        line.insert(0, parent)
    return line


def _quiet() -> None:
    """Before transformers is imported: no warnings about what is meant so."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
