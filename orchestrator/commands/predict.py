"""Loads a trained stage and asks it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import InputError, Problem
from orchestrator.results.find import Place
from orchestrator.store import StageStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from orchestrator.method.evaluate import Removed
    from orchestrator.method.predict import Prediction
TEACHER = "a stage of its teacher (the trial's stage 0 is one) or of another method"
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
        quiet()
        from orchestrator.method.icot_kd.thoughts import load_coupled
        from orchestrator.method.models.model import stage_model, stage_tokenizer

        manifest = place.tried.manifest
        store.verify(manifest)
        folder = store.folder(manifest)
        model = load_coupled(folder) if spec.kind == "coupling" else stage_model(place.trial.job.model, folder)
        return cls(place, model, stage_tokenizer(folder))

    def answers(self, questions: Iterable[str]) -> Iterator[Prediction]:
        """Return what the stage's model writes after each question."""
        from orchestrator.method.predict import predict

        spec = self.place.tried.stage.spec
        shift = spec.removed_to if spec.keep_position else 0
        for question in questions:
            yield predict(self.model, self.tokenizer, question, shift)


def removed_by(place: Place) -> Removed:
    from orchestrator.method.evaluate import Removed

    spec = place.tried.stage.spec
    return Removed(spec.removed_to, spec.removal_side, spec.keep_position)


def quiet() -> None:
    """Before transformers is imported: no warnings about what is meant so."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
