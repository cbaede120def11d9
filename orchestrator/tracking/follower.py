"""The tracker in a thread of its own: the driver never waits for MLflow and never fails with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.delivery import Background
from orchestrator.plan import Plan
from orchestrator.tracking.tracker import Tracker


class BackgroundTracker(Background[Plan]):
    """Records committed stages. `stepwise track` delivers later what was left when this was closed."""

    behind = "MLflow is behind; training goes on, and the store has everything"
    rest = 4.0
    """A long rest: every delivery looks at all stages, which may be thousands."""

    def __init__(self, tracker: Tracker, say: Callable[[str], None]) -> None:
        super().__init__(tracker.plan, say)
        self._tracker = tracker
        self._report: Path | None = None

    def finish(self, report: Path) -> None:
        """Ask for the job's envelope and its report files to be recorded too. Returns at once."""
        self._report = report
        self.notify()

    def _deliver(self, closing: bool) -> None:
        report, self._tracker.plan = self._report, self._plan
        self._tracker.sync()
        if report:
            self._tracker.finish(report)
            self._report = None
        if closing:
            self._tracker.end()
