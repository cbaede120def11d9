"""Tells where a trial is right now: one small file a trial, replaced as it trains, read by any terminal."""

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
"""The seconds without a sign after which a trial in training may hang, ..."""
QUIET_SHARE = 0.25
"""... if they are also more than this share of its stage takes at its pace: signs come twenty times a stage."""


class TrialProgress(Record):
    """The place in a stage that a worker has come to."""

    stage_key: str
    step: int
    """The optimizer steps of the stage so far."""
    removed_tokens: int
    steps_per_second: float
    """The mean pace since this process began or continued the stage."""
    at: float
    """The time of writing, in seconds since the epoch."""

    def quiet_seconds(self, steps: int, now: float) -> float | None:
        """Return for how long a stage of so many steps has shown no sign, once that is too long; else None."""
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
        """Write where a stage is: some twenty times an attempt, first at its beginning.

        It is for display, so failing stops nothing.
        """
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
        """Return the last place that was written; None if there is none."""
        try:
            return TrialProgress.model_validate_json(read_record(self._store, self.path))
        except (OSError, ValidationError):
            return None
