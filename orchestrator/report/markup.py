"""Small pieces of HTML. Text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple


class Column(NamedTuple):
    """A column and how its cells are set."""

    heading: str
    kind: Literal["text", "number", "code", "prose"] = "number"


def paragraph(text: str, look: str = "") -> str:
    """A paragraph with a CSS class."""
    return f'<p class="{look}">{escape(text)}</p>' if look else f"<p>{escape(text)}</p>"


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls where it is too wide. The first cell of a row names it."""
    head = "".join(f'<th scope="col" class="{c.kind}">{escape(c.heading)}</th>' for c in columns)
    body = "\n".join(f"<tr>{''.join(_cells(columns, row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cells(columns: Sequence[Column], row: Sequence[str]) -> Iterable[str]:
    for column, text in zip(columns, row, strict=True):
        tag, scope = ("th", ' scope="row"') if column is columns[0] else ("td", "")
        yield f'<{tag}{scope} class="{column.kind}">{escape(text)}</{tag}>'
