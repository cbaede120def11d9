"""The frontier as tables: for the terminal, within 80 columns, as CSV and as Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from orchestrator.config import Search
from orchestrator.report import words
from orchestrator.report.trials import TrialPoints
from orchestrator.search import Standing
from orchestrator.search.objective import value_words
from orchestrator.shown import cell
from orchestrator.space import symbols
from orchestrator.store.frontier import FrontierPoint

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = tuple(name for name in FrontierPoint.model_fields if name != "settings")
MEASURES = ("tokens\nremoved", "exact\nmatch", "tokens\nwritten", "examples\n/s", "speed-\nup")


def summary_table(trials: Sequence[TrialPoints], pruned: Container[str] = ()) -> Table:
    """Where every trial stands. Of a search with the settings, and without the speeds.

    ``pruned``: names of trials that a search has stopped.
    """
    restarts = ["re-\nstarts"] if any(trial.restarts for trial in trials) else []
    if any(trial.settings for trial in trials):
        return _search_summary(trials, restarts, pruned)
    table = _table("method", ["seed", *MEASURES, "steps", "min", *restarts], gutter=1, least=3 if restarts else 5)
    table.add_column("verdict", vertical="bottom")
    for trial in trials:
        table.add_row(
            words.SHORT_LABELS[trial.method],
            str(trial.last.seed),
            *_measures(trial.last),
            f"{trial.last.step:,}",
            words.minutes(trial.seconds),
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
            words.SHORT_LABELS[trial.method],
            trial.settings,
            str(trial.last.seed),
            *_measures(trial.last)[:3],
            f"{trial.last.step:,}",
            words.minutes(trial.seconds),
            *[str(trial.restarts)] * len(restarts),
            _verdict(trial, pruned),
        )
    return table


def _verdict(trial: TrialPoints, pruned: Container[str]) -> str:
    return "pruned" if trial.last.trial in pruned else trial.verdict


def _measures(point: FrontierPoint) -> tuple[str, ...]:
    """The cells below ``MEASURES``. Nobody measures a model that failed."""
    removed = f"{point.removed_tokens}/{point.total_tokens}"
    if not point.passed:
        return removed, "-", "-", "-", "-"
    return (
        removed,
        words.exact(point.exact_match),
        words.tokens(point.generated_tokens),
        words.rate(point.examples_per_second),
        words.speedup(point.speedup),
    )


def standings_table(search: Search, ranked: Sequence[Standing]) -> Table:
    """The configurations of a search, best first; those of equal value have one rank."""
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
    """Trials stage by stage; a star marks the Pareto set over all methods."""
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


def frontier_csv(points: Sequence[FrontierPoint]) -> str:
    """Every field of every point, and a column for every field that a search set; an empty cell is None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIELDS, *_searched(points)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in record.items()} for record in _records(points))
    return text.getvalue()


def frontier_arrow(points: Sequence[FrontierPoint]) -> pa.Table:
    """The same table with types; a searched field is a number where all its values are."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in (*FIELDS, *_searched(points))}
    for record in _records(points):
        for name, values in columns.items():
            values.append(record.get(name))
    typed = {name: _typed(values) if name not in FIELDS else values for name, values in columns.items()}
    return pa.table(typed)


def _searched(points: Iterable[FrontierPoint]) -> list[str]:
    return list(dict.fromkeys(field for point in points for field in point.settings))


def _records(points: Iterable[FrontierPoint]) -> Iterator[dict[str, Any]]:
    return ({name: getattr(point, name) for name in FIELDS} | point.settings for point in points)


def _typed(values: list[Any]) -> list[Any]:
    """Numbers, with infinity among them, or text."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return values
    if all(value == "inf" or isinstance(value, int | float) for value in known):
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _table(name: str, numbers: Sequence[str], gutter: int, least: int = 5) -> Table:
    """``least``: columns for any number."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, gutter - 1, 0, 0), show_edge=False)
    table.add_column(name, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold", min_width=least)
    for column in table.columns:
        column.vertical = "bottom"
    return table
