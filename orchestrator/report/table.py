"""The frontier as tables: for the terminal, within 80 columns, as CSV and as Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from orchestrator.config import Method, Search
from orchestrator.method.stage import Verdict
from orchestrator.report import words
from orchestrator.report.trials import by_trial
from orchestrator.search import Standing
from orchestrator.search.objective import value_words
from orchestrator.space import symbols
from orchestrator.store.frontier import FrontierPoint

SHORT_LABELS: dict[Method, str] = {**words.LABELS, "stepwise": "Stepwise"}
FIELDS = tuple(name for name in FrontierPoint.model_fields if name != "settings")
MEASURES = ("tokens\nremoved", "exact\nmatch", "tokens\nwritten", "examples\n/s", "speed-\nup")


@dataclass(frozen=True)
class SummaryRow:
    """Where a trial stands: its last stage that passed, and the verdict on its last one."""

    trial: str
    method: Method
    settings: str
    """What the search set, in short; empty without a search."""
    seed: int
    removed_tokens: int
    total_tokens: int
    exact_match: float
    generated_tokens: float
    examples_per_second: float
    speedup: float | None
    steps: int
    minutes: float
    """Training and evaluating all its committed stages."""
    restarts: int
    verdict: Verdict | Literal["pruned"]


def summary_rows(points: Iterable[FrontierPoint], pruned: Container[str] = ()) -> tuple[SummaryRow, ...]:
    """One row a trial. ``pruned``: names of trials that a search has stopped."""
    return tuple(
        SummaryRow(
            trial=trial.last.trial,
            method=trial.method,
            settings=trial.settings,
            seed=trial.last.seed,
            removed_tokens=trial.last.removed_tokens,
            total_tokens=trial.last.total_tokens,
            exact_match=trial.last.exact_match,
            generated_tokens=trial.last.generated_tokens,
            examples_per_second=trial.last.examples_per_second,
            speedup=trial.last.speedup,
            steps=trial.last.step,
            minutes=sum(stage.seconds for stage in trial.stages) / 60,
            restarts=trial.restarts,
            verdict="pruned" if trial.last.trial in pruned else trial.verdict,
        )
        for trial in by_trial(points)
    )


def summary_table(points: Iterable[FrontierPoint], pruned: Container[str] = ()) -> Table:
    """Every trial's last committed stage. Of a search with the settings, and without the speeds."""
    rows = summary_rows(points, pruned)
    if any(row.settings for row in rows):
        return _search_summary(rows)
    restarts = ["re-\nstarts"] if any(row.restarts for row in rows) else []
    table = _table("method", ["seed", *MEASURES, "steps", "min", *restarts], gutter=1)
    table.add_column("verdict", vertical="bottom")
    for row in rows:
        table.add_row(
            SHORT_LABELS[row.method],
            str(row.seed),
            f"{row.removed_tokens}/{row.total_tokens}",
            words.exact(row.exact_match),
            words.tokens(row.generated_tokens),
            words.rate(row.examples_per_second),
            words.speedup(row.speedup),
            f"{row.steps:,}",
            words.minutes(60 * row.minutes),
            *[str(row.restarts)] * len(restarts),
            row.verdict,
        )
    return table


def _search_summary(rows: Iterable[SummaryRow]) -> Table:
    table = _table("method", [], gutter=1)
    table.add_column("settings", overflow="fold", vertical="bottom")
    for heading in ("seed", *MEASURES[:3], "steps", "min"):
        table.add_column(heading, justify="right", vertical="bottom")
    table.add_column("verdict", vertical="bottom")
    for row in rows:
        table.add_row(
            SHORT_LABELS[row.method],
            row.settings,
            str(row.seed),
            f"{row.removed_tokens}/{row.total_tokens}",
            words.exact(row.exact_match),
            words.tokens(row.generated_tokens),
            f"{row.steps:,}",
            words.minutes(60 * row.minutes),
            row.verdict,
        )
    return table


def standings_table(search: Search, ranked: Iterable[Standing]) -> Table:
    """The configurations of a search, best first."""
    table = _table("rank", [], gutter=1)
    table.add_column("configuration", overflow="fold", vertical="bottom")
    table.add_column("seeds", justify="right", vertical="bottom")
    table.add_column(f"objective: {search.aggregate}", vertical="bottom")
    for rank, standing in enumerate(ranked, 1):
        state = f"{value_words(search, standing.value)}{', pruned' if standing.pruned else ''}"
        place = "-" if standing.value is None else str(rank)
        table.add_row(place, symbols(standing.settings), str(len(standing.seeds)), state)
    return table


def frontier_table(points: Iterable[FrontierPoint]) -> Table:
    """Stepwise Internalization stage by stage; a star marks the Pareto set over all methods."""
    table = _table("seed", ["stage", *MEASURES], gutter=2)
    table.add_column("Pareto", justify="center")
    for trial in by_trial(point for point in points if point.method == "stepwise"):
        for point in trial.stages:
            table.add_row(
                str(point.seed) if point is trial.stages[0] else "",
                str(point.stage),
                f"{point.removed_tokens}/{point.total_tokens}",
                words.exact(point.exact_match),
                words.tokens(point.generated_tokens),
                words.rate(point.examples_per_second),
                words.speedup(point.speedup),
                "*" if point.pareto else "",
                end_section=point is trial.last,
            )
    return table


def frontier_csv(points: Sequence[FrontierPoint]) -> str:
    """Every field of every point, and a column for every field that a search set; an empty cell is None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIELDS, *_searched(points)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(points))
    return text.getvalue()


def frontier_parquet(points: Sequence[FrontierPoint], path: Path) -> None:
    """The same table with types; a searched field is a number where all its values are."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    columns: dict[str, list[Any]] = {name: [] for name in (*FIELDS, *_searched(points))}
    for record in _records(points):
        for name, values in columns.items():
            values.append(record.get(name))
    typed = {name: _typed(values) if name not in FIELDS else values for name, values in columns.items()}
    write_table(pa.table(typed), path)


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


def _table(name: str, numbers: Sequence[str], gutter: int) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, gutter - 1, 0, 0), show_edge=False)
    table.add_column(name, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold", min_width=5)
    for column in table.columns:
        column.vertical = "bottom"
    return table
