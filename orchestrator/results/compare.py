"""Two jobs beside each other: the fields in which they differ, then their results."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

from orchestrator import labels
from orchestrator.config import Job
from orchestrator.identity import field_diff, non_default
from orchestrator.method.stage import Record
from orchestrator.plan import Plan
from orchestrator.plan.grid import symbols
from orchestrator.results.findings import Findings
from orchestrator.results.ranking import best_line, of_configuration
from orchestrator.store import StageStore


class Comparison(Record):
    """Two jobs, as ``stepwise compare --json`` gives them. Pairs are left, right; None where one has nothing."""

    jobs: tuple[str, str]
    differences: tuple[str, ...]
    """The fields that differ, with both values."""
    stages_in_common: int
    best: tuple[str | None, str | None]
    """The best configuration of a search, in words."""
    shown: tuple[str | None, str | None]
    """The configuration of a search whose exact match follows: the best that has a stage."""
    exact_match: dict[str, tuple[float | None, float | None]]
    """The exact match at every removed count and of every baseline, averaged over seeds."""


def comparison(left: Plan, right: Plan, store: StageStore) -> Comparison:
    """Compare two jobs, whatever part of them is committed."""
    one, other = Findings.of(left, store), Findings.of(right, store)
    means = _means(one), _means(other)
    rows = dict.fromkeys([*means[0], *means[1]])
    removed_first = sorted(rows, key=lambda row: int(row.split()[0]) if row[0].isdigit() else math.inf)
    return Comparison(
        jobs=(left.job.name, right.job.name),
        differences=tuple(field_diff(_fields(left.job), _fields(right.job))),
        stages_in_common=len(left.unique_stages.keys() & right.unique_stages.keys()),
        best=(_best(one), _best(other)),
        shown=(_shown(one), _shown(other)),
        exact_match={row: (means[0].get(row), means[1].get(row)) for row in removed_first},
    )


def _fields(job: Job) -> dict[str, Any]:
    """Return every field that can differ, with all its values where a search sets it."""
    document = job.model_dump(mode="json", exclude={"name", "search"})
    search = non_default(job.search) if job.search else None
    for field, values in search.pop("space").items() if search else ():
        section, key = field.split(".")
        document[section][key] = values
    return document | {"search": search}


def _best(findings: Findings) -> str | None:
    return best_line(findings.plan, findings.ranked) if findings.ranked else None


def _shown(findings: Findings) -> str | None:
    return symbols(findings.leader.settings) if findings.leader else None


def _means(findings: Findings) -> dict[str, float]:
    """Return mean exact match by row of the table, over the leading trials of a search, else over all."""
    plan = of_configuration(findings.plan, findings.leader.settings) if findings.leader else findings.plan
    names = {trial.name for trial in plan.trials}
    found: dict[str, list[float]] = {}
    for trial in findings.trials:
        for point in trial.curve if trial.last.trial in names else ():
            removed = f"{point.removed_tokens} of {point.total_tokens} removed"
            row = removed if trial.method == "stepwise" else labels.LABELS[trial.method]
            found.setdefault(row, []).append(point.exact_match)
    return {row: fmean(values) for row, values in found.items()}
