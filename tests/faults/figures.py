"""What a run of faults reports: the last line, in JSON."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

REPOSITORY = Path(__file__).parents[2]
PLACES = sorted(
    {
        place
        for path in (REPOSITORY / "orchestrator").rglob("*.py")
        for place in re.findall(r'failpoint\("(.+?)"\)', path.read_text())
    }
)
"""Every failpoint there is."""


@dataclass
class Figures:
    """What is reported."""

    planned: int = 0
    delivered: int = 0
    cases: int = 0
    stages_lost: int = 0
    frontiers_differing: int = 0
    begun: int = 0
    stages: int = 0
    leftovers: int = 0
    redone_twice: int = 0
    points_missing: int | None = None
    """None: MLflow was not part of this run."""
    points_doubled: int | None = None
    by_kind: Counter[str] = field(default_factory=Counter)
    """Kinds of processes that were killed, of the real command."""
    struck: set[str] = field(default_factory=set)
    lost_steps: list[int] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        return {
            "planned": self.planned,
            "delivered": self.delivered,
            **({"delivered_by_kind": dict(self.by_kind.most_common())} if self.by_kind else {}),
            "cases": self.cases,
            "stages_lost": self.stages_lost,
            "frontiers_identical": f"{self.cases - self.frontiers_differing}/{self.cases}",
            "redo_factor": round(self.begun / max(1, self.stages + self.delivered), 3),
            "redone_more_than_once_a_fault": self.redone_twice,
            "points_missing": self.points_missing,
            "points_doubled": self.points_doubled,
            "leftovers": self.leftovers,
            "failpoints_struck": f"{len(self.struck & set(PLACES))}/{len(PLACES)}",
            "failpoints_missing": sorted(set(PLACES) - self.struck),
            "lost_steps_p50_p95": _percentiles(self.lost_steps),
            "recovery_seconds_p50_p95": _percentiles(self.recovery_seconds),
            "failures": self.failures[:20],
        }


def _percentiles(values: list[float] | list[int]) -> list[float]:
    if len(values) < 2:
        return [float(value) for value in values]
    cuts = quantiles(values, n=20)
    return [round(cuts[9], 3), round(cuts[18], 3)]
