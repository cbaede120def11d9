"""The frontier as columns: CSV for spreadsheets, Arrow for notebooks and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.results.frontier import FrontierPoint
from orchestrator.shown import cell

if TYPE_CHECKING:
    import pyarrow as pa


FIELDS = tuple(name for name in FrontierPoint.model_fields if name != "settings")
"""The columns that every frontier has."""


def frontier_csv(points: Sequence[FrontierPoint]) -> str:
    """Return every field of every point, and a column for every field that a search set; an empty cell is None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIELDS, *_searched(points)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in record.items()} for record in _records(points))
    return text.getvalue()


def frontier_arrow(points: Sequence[FrontierPoint]) -> pa.Table:
    """Return the same table with types; a searched field is a number where all its values are."""
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
    """Return values that Arrow can type: numbers, with infinity among them, or text."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        return values
    if all(value == "inf" or isinstance(value, int | float) for value in known):
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]
