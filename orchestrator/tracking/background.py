"""The tracker in a thread of its own: the driver never waits for MLflow and never fails with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from orchestrator.plan import Plan
from orchestrator.tracking.tracker import Tracker

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
REST = 4.0
"""Times what a delivery took, before the next: every one looks at all stages, so with thousands they are few."""
SECONDS_BETWEEN_COMPLAINTS = 60.0


class BackgroundTracker:
    """Wakes when told, records what is new, tries again with growing pauses while MLflow is away."""

    def __init__(self, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._say = say
        self._report: Path | None = None
        self._wake, self._closing, self._abandoned = Event(), Event(), Event()
        self._delivered = False
        self._complained = float("-inf")
        self._thread = Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        """Wait for the first ``notify``."""
        self._thread.start()

    def notify(self) -> None:
        """Say that a stage was committed. Returns at once."""
        self._wake.set()

    def follow(self, plan: Plan) -> None:
        """Take a longer plan from now on: the search has proposed another configuration."""
        self._tracker.plan = plan

    def finish(self, report: Path) -> None:
        """Have the job's envelope and report files recorded too. Returns at once."""
        self._report = report
        self._wake.set()

    def close(self, deadline_seconds: float) -> bool:
        """Deliver what is left, for at most so long. False: some of it only `stepwise track` can deliver."""
        self._closing.set()
        self._wake.set()
        self._thread.join(deadline_seconds)
        self._abandoned.set()
        return self._delivered

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._abandoned.is_set():
            self._wake.wait()
            self._wake.clear()
            closing, began = self._closing.is_set(), time.monotonic()
            try:
                self._deliver(closing)
            except Exception as error:
                self._complain(error)
                (self._abandoned if closing else self._closing).wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self._wake.set()
            else:
                pause = FIRST_PAUSE
                if closing:
                    self._delivered = True
                    return
                self._closing.wait(REST * (time.monotonic() - began))

    def _deliver(self, closing: bool) -> None:
        report = self._report
        self._tracker.sync()
        if report:
            self._tracker.finish(report)
            self._report = None
        if closing:
            self._tracker.end()

    def _complain(self, error: Exception) -> None:
        if time.monotonic() - self._complained >= SECONDS_BETWEEN_COMPLAINTS:
            self._complained = time.monotonic()
            self._say(f"MLflow is behind; training goes on, and the store has everything. {error}")
