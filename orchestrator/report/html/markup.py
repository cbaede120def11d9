"""Small pieces of HTML. They escape text; headings, summaries and a ``Picture`` are markup already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple


class Column(NamedTuple):
    """A column and how its cells are set. ``share``: numbers from 0 to 1, on a ground that is the darker for more."""

    heading: str
    kind: Literal["text", "number", "code", "prose", "share"] = "number"


class Picture(str):
    """Markup that stands in a cell as it is."""

    __slots__ = ()


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
        shade = f' style="--share:{text}"' if column.kind == "share" and text else ""
        content = text if isinstance(text, Picture) else escape(text)
        yield f'<{tag}{scope} class="{column.kind}"{shade}>{content}</{tag}>'


def section(heading: str, *parts: str) -> str:
    """A part of the page under a heading."""
    return "\n".join([f"<section>\n<h2>{heading}</h2>", *parts, "</section>"])


def folded(summary: str, content: str) -> str:
    """What opens on a click, and on paper."""
    return f"<details>\n<summary>{summary}</summary>\n{content}\n</details>"
