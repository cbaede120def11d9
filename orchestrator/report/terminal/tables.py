"""The frontier and the ranking of a search as tables for the terminal, within 80 columns."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from orchestrator import labels
from orchestrator.config import Search
from orchestrator.plan.grid import symbols
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.ranking import Standing, value_words
from orchestrator.results.trial_points import TrialPoints

MEASURES = ("tokens\nremoved", "exact\nmatch", "tokens\nwritten", "examples\n/s", "speed-\nup")


def summary_table(trials: Sequence[TrialPoints], pruned: Container[str] = ()) -> Table:
    """Return a row for every trial. A search has its settings there, and no speeds.

    ``pruned``: names of trials that a search has stopped.
    """
    restarts = ["re-\nstarts"] if any(trial.restarts for trial in trials) else []
    if any(trial.settings for trial in trials):
        return _search_summary(trials, restarts, pruned)
    table = _table("method", ["seed", *MEASURES, "steps", "min", *restarts], gutter=1, least=3 if restarts else 5)
    table.add_column("verdict", vertical="bottom")
    for trial in trials:
        table.add_row(
            labels.SHORT_LABELS[trial.method],
            str(trial.last.seed),
            *_measures(trial.last),
            f"{trial.last.step:,}",
            labels.minutes(trial.seconds),
            *[str(trial.restarts)] * len(restarts),
            _verdict(trial, pruned),
        )
    return table


def _search_summary(trials: Iterable[TrialPoints], restarts: Sequence[str], pruned: Container[str]) -> Table:
    table = _table("method", [], gutter=1)
    table.add_column("settings", overflow="fold", vertical="bottom")
    for heading in ("seed", *MEASURES[:3], "steps", "min", *restarts):
        table.add_column(heading, justify="right", vertical="bottom")
    table.add_column("verdict", vertical="bottom")
    for trial in trials:
        table.add_row(
            labels.SHORT_LABELS[trial.method],
            trial.settings,
            str(trial.last.seed),
            *_measures(trial.last)[:3],
            f"{trial.last.step:,}",
            labels.minutes(trial.seconds),
            *[str(trial.restarts)] * len(restarts),
            _verdict(trial, pruned),
        )
    return table


def _verdict(trial: TrialPoints, pruned: Container[str]) -> str:
    return "pruned" if trial.last.trial in pruned else trial.verdict


def _measures(point: FrontierPoint) -> tuple[str, ...]:
    """Return the cells below ``MEASURES``; a model that failed was not measured."""
    removed = f"{point.removed_tokens}/{point.total_tokens}"
    if not point.passed:
        return removed, "-", "-", "-", "-"
    return (
        removed,
        labels.exact(point.exact_match),
        labels.tokens(point.generated_tokens),
        labels.rate(point.examples_per_second),
        labels.speedup(point.speedup),
    )


def standings_table(search: Search, ranked: Sequence[Standing]) -> Table:
    """Return the configurations of a search, best first; those of equal value have one rank."""
    values = [standing.value for standing in ranked]
    table = _table("rank", [], gutter=1)
    table.add_column("configuration", overflow="fold", vertical="bottom")
    table.add_column("seeds", justify="right", vertical="bottom")
    table.add_column(f"objective: {search.aggregate}", vertical="bottom")
    for standing in ranked:
        state = f"{value_words(search, standing.value)}{', pruned' if standing.pruned else ''}"
        place = "-" if standing.value is None else str(values.index(standing.value) + 1)
        table.add_row(place, symbols(standing.settings), str(len(standing.seeds)), state)
    return table


def frontier_table(trials: Iterable[TrialPoints]) -> Table:
    """Return trials stage by stage; a star marks the Pareto set over all methods."""
    table = _table("seed", ["stage", *MEASURES], gutter=2)
    table.add_column("Pareto", justify="center")
    for trial in trials:
        for point in trial.stages:
            table.add_row(
                str(point.seed) if point is trial.stages[0] else "",
                str(point.stage),
                *_measures(point),
                "*" if point.pareto else "",
                end_section=point is trial.last,
            )
    return table


def _table(name: str, numbers: Sequence[str], gutter: int, least: int = 5) -> Table:
    """Return an empty table. ``least``: the characters that a column of numbers has at least."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, gutter - 1, 0, 0), show_edge=False)
    table.add_column(name, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold", min_width=least)
    for column in table.columns:
        column.vertical = "bottom"
    return table
