"""Two jobs beside each other: what differs in what they are, then in what came out."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from orchestrator import labels
from orchestrator.config import Job, Method
from orchestrator.identity import field_diff, non_default
from orchestrator.method.stage import Record
from orchestrator.plan import Plan
from orchestrator.plan.grid import symbols
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.ranking import best_line, of_configuration
from orchestrator.results.trial_points import TrialPoints
from orchestrator.store import StageStore


class Comparison(Record):
    """Two jobs, as ``stepwise compare --json`` gives them. Pairs are left, right; None where one has nothing."""

    jobs: tuple[str, str]
    differences: tuple[str, ...]
    """Fields that differ, with both values."""
    stages_in_common: int
    best: tuple[str | None, str | None]
    """Of a search its best configuration."""
    shown: tuple[str | None, str | None]
    """Of a search the configuration whose exact match follows: the best that has a stage."""
    exact_match: dict[str, tuple[float | None, float | None]]
    """At every removed count and of every baseline, averaged over seeds."""


def comparison(left: Plan, right: Plan, store: StageStore) -> Comparison:
    """What differs, what is shared, and what came out, of whatever is committed."""
    best_left, shown_left, left_means = _side(left, store)
    best_right, shown_right, right_means = _side(right, store)
    return Comparison(
        jobs=(left.job.name, right.job.name),
        differences=tuple(field_diff(_fields(left.job), _fields(right.job))),
        stages_in_common=len(left.unique_stages.keys() & right.unique_stages.keys()),
        best=(best_left, best_right),
        shown=(shown_left, shown_right),
        exact_match={
            row: (left_means.get(row), right_means.get(row))
            for row in dict.fromkeys(_ordered([*left_means, *right_means]))
        },
    )


def _fields(job: Job) -> dict[str, Any]:
    """Every field that can differ, with all its values where a search sets it; of a search what is not default."""
    document = job.model_dump(mode="json", exclude={"name", "search"})
    search = non_default(job.search) if job.search else None
    for field, values in search.pop("space").items() if search else ():
        section, key = field.split(".")
        document[section][key] = values
    return document | {"search": search}


def _side(plan: Plan, store: StageStore) -> tuple[str | None, str | None, dict[str, float]]:
    """The best configuration's line, the one that is shown, and its means; without a search everybody's."""
    findings = Findings.of(plan, store)
    own = of_configuration(plan, findings.leader.settings) if findings.leader else plan
    shown = {trial.name for trial in own.trials}
    trials = [trial for trial in findings.trials if trial.last.trial in shown]
    best = best_line(plan, findings.ranked) if findings.ranked else None
    return best, symbols(findings.leader.settings) if findings.leader else None, _means(trials)


def _means(trials: Sequence[TrialPoints]) -> dict[str, float]:
    """By row of the table: mean over the trials that have a point there."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for point in trial.curve:
            found.setdefault(_row(trial.method, point), []).append(point.exact_match)
    return {row: fmean(values) for row, values in found.items()}


def _row(method: Method, point: FrontierPoint) -> str:
    if method != "stepwise":
        return labels.LABELS[method]
    return f"{point.removed_tokens} of {point.total_tokens} removed"


def _ordered(rows: list[str]) -> list[str]:
    """Removed counts upwards, then the baselines."""
    return sorted(rows, key=lambda row: (not row[0].isdigit(), int(row.split()[0]) if row[0].isdigit() else 0))
