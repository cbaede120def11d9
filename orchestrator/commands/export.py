"""Writes a stage's model as a folder that needs nothing of Stepwise's."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from orchestrator.commands.predict import TEACHER, TrainedStage
from orchestrator.config import job_toml
from orchestrator.errors import InputError, Problem
from orchestrator.files import abandoned, partial
from orchestrator.report.card import Card
from orchestrator.results.find import Place
from orchestrator.results.frontier import frontier
from orchestrator.store import Manifest, StageStore, is_fork, saved_job
from orchestrator.tasks import make_task


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
        fix = f"export {TEACHER}; `stepwise predict` asks the trial's last stage"
        raise InputError(Problem("EXP004", place.words, found, fix))


def _check_free(place: Place, folder: Path) -> None:
    if folder.exists() or folder.is_symlink():
        raise InputError(Problem("EXP001", str(folder), "exists already", "name a new folder"))
    if place.tried.stage.spec.keep_position and place.tried.stage.spec.removed_to:
        found = "was trained with schedule.keep_position; no pipeline gives a model such positions"
        raise InputError(Problem("EXP003", place.words, found, "`stepwise predict` does"))


def _write_home(trained: TrainedStage, store: StageStore, folder: Path) -> None:
    from orchestrator.method.encoding import prompt_ids
    from orchestrator.method.models.home import pipeline_prompt, save_home
    from orchestrator.method.models.model import whole_model

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


def _lineage(manifest: Manifest, store: StageStore) -> list[Manifest]:
    """The stage and its ancestors, as far as the store has them; the first one first."""
    line = [manifest]
    while isinstance(line[0].parent, str) and (parent := store.read(line[0].parent)):
        line.insert(0, parent)
    return line
