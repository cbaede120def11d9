"""Where a trial is right now: one small file per trial, replaced as it trains, read by any terminal."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from orchestrator.files import replace_file
from orchestrator.method.stage import Record
from orchestrator.plan import PlannedStage
from orchestrator.store import job_folder, read_record

QUIET_SECONDS = 900.0
"""A trial in training that shows nothing for as long, ..."""
QUIET_SHARE = 0.25
"""... and for as long as this share of its stage would take at its pace, may hang: signs come twenty times a stage."""


class TrialProgress(Record):
    """The attempt a worker is in. ``steps_per_second`` since it began."""

    stage_key: str
    step: int
    removed_tokens: int
    steps_per_second: float
    at: float

    def quiet_seconds(self, steps: int, now: float) -> float | None:
        """How long nothing was heard from a stage of so many steps, once that is too long; else None."""
        pace = QUIET_SHARE * steps / self.steps_per_second if self.steps_per_second else 0.0
        quiet = now - self.at
        return quiet if quiet > max(QUIET_SECONDS, pace) else None


class ProgressFile:
    """The progress of one trial of one job."""

    def __init__(self, store: Path, job: str, trial: str) -> None:
        self.path = job_folder(store, job, "trials", f"{trial}.json")
        self._store = store
        self._began = ("", 0, 0.0)

    def write(self, stage: PlannedStage, step: int, removed_tokens: int) -> None:
        """Called some twenty times an attempt, first at its beginning. It is for display: failing stops nothing."""
        now = time.time()
        if self._began[0] != stage.key:
            self._began = (stage.key, step, now)
        rate = (step - self._began[1]) / max(now - self._began[2], 1e-9)
        progress = TrialProgress(
            stage_key=stage.key, step=step, removed_tokens=removed_tokens, steps_per_second=rate, at=now
        )
        with suppress(OSError):
            replace_file(self.path, progress.model_dump_json(), durable=False)

    def read(self) -> TrialProgress | None:
        try:
            return TrialProgress.model_validate_json(read_record(self._store, self.path))
        except (OSError, ValidationError):
            return None
