"""Two jobs beside each other: what differs in what they are, then in what came out."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.console import Group
from rich.table import Table

from orchestrator.config import Job, Method
from orchestrator.identity import field_diff
from orchestrator.plan import Plan
from orchestrator.report import words
from orchestrator.report.text import count
from orchestrator.report.trials import TrialPoints, by_trial
from orchestrator.search import best_line, of_configuration, standings
from orchestrator.store import FrontierPoint, StageStore, frontier, pruned_trials


def comparison(left: Plan, right: Plan, store: StageStore) -> dict[str, Any]:
    """Fields that differ, stages in common, and exact match at every removed count, averaged over seeds."""
    jobs = [_fields(plan.job) for plan in (left, right)]
    sides = [_side(plan, store) for plan in (left, right)]
    return {
        "jobs": [left.job.name, right.job.name],
        "differences": list(field_diff(*jobs)),
        "stages_in_common": len(left.unique_stages.keys() & right.unique_stages.keys()),
        "best": [side["best"] for side in sides],
        "exact_match": {
            row: [side["exact_match"].get(row) for side in sides]
            for row in dict.fromkeys(_ordered([*sides[0]["exact_match"], *sides[1]["exact_match"]]))
        },
    }


def comparison_table(document: dict[str, Any]) -> Group:
    """The comparison for a terminal."""
    left, right = document["jobs"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("exact match")
    for heading in (left, right, "difference"):
        table.add_column(heading, justify="right", overflow="fold")
    for row, (a, b) in document["exact_match"].items():
        difference = "" if a is None or b is None else f"{b - a:+.3f}"
        table.add_row(row, *("-" if value is None else words.exact(value) for value in (a, b)), difference)
    common = count(document["stages_in_common"], "stage")
    best = [f"{name}  {line}" for name, line in zip(document["jobs"], document["best"], strict=True) if line]
    return Group(
        f"{left} -> {right}",
        *(f"  {line}" for line in document["differences"] or ["no field differs but the name"]),
        f"  {common} in common",
        "",
        table,
        *best,
    )


def _fields(job: Job) -> dict[str, Any]:
    """Every field that can differ; a job without a search has none of its fields."""
    document = job.model_dump(mode="json", exclude={"name"})
    return document | {"search": document["search"] or {}}


def _side(plan: Plan, store: StageStore) -> dict[str, Any]:
    points = frontier(plan, store)
    ranked = standings(plan, points, pruned_trials(plan, store.root))
    shown = {trial.name for trial in (of_configuration(plan, ranked[0].settings) if ranked else plan).trials}
    trials = by_trial(point for point in points if point.trial in shown)
    return {"best": best_line(plan, ranked) if ranked else None, "exact_match": _means(trials)}


def _means(trials: Sequence[TrialPoints]) -> dict[str, float]:
    """By row of the table: mean over the trials that have a point there."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for point in trial.curve:
            found.setdefault(_row(trial.method, point), []).append(point.exact_match)
    return {row: fmean(values) for row, values in found.items()}


def _row(method: Method, point: FrontierPoint) -> str:
    if method != "stepwise":
        return words.LABELS[method]
    return f"{point.removed_tokens} of {point.total_tokens} removed"


def _ordered(rows: list[str]) -> list[str]:
    """Removed counts upwards, then the baselines."""
    return sorted(rows, key=lambda row: (not row[0].isdigit(), int(row.split()[0]) if row[0].isdigit() else 0))
