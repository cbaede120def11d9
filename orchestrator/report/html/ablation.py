"""What a searched field does: exact match at the end of the trials, value by value, with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator import labels
from orchestrator.plan.grid import key_of, text
from orchestrator.report.html.markup import Column, Picture, section, table
from orchestrator.results.effects import Effect, effects
from orchestrator.results.findings import Findings
from orchestrator.results.intervals import interval


def ablation(findings: Findings) -> str:
    """The section of the page, or nothing where no field has two values to compare yet."""
    found = effects(findings)
    columns = [
        Column("field", "text"),
        Column("value"),
        Column("trials"),
        Column("exact match"),
        Column("95 % interval"),
        Column("from 0 to 1", "text"),
    ]
    says = (
        "Exact match at the end of every trial that has ended, whatever its seed and its other fields; "
        "one that gave up counts as 0. The interval is of the mean (Student's t), at least what the examples leave open"
    )
    rows = list(_rows(found, findings.examples))
    return section("What does each field do?", table(says, columns, rows)) if rows else ""


def _rows(found: Sequence[Effect], examples: int) -> Iterator[list[str]]:
    for effect in found:
        low, high = interval(effect.shares, examples)
        yield [
            key_of(effect.field),
            text(effect.value),
            str(len(effect.shares)),
            labels.exact(effect.mean),
            f"{labels.exact(low)}–{labels.exact(high)}",
            _whiskers(effect.mean, low, high),
        ]


def _whiskers(mean: float, low: float, high: float) -> Picture:
    """The interval as a line, its mean as a point; the cells before it say the same in numbers."""
    low_x, mean_x, high_x = (f"{100 * share:.1f}%" for share in (low, mean, high))
    return Picture(
        '<svg class="whiskers" aria-hidden="true"><rect x="0" width="100%" y="50%" height="1"/>'
        f'<line x1="{low_x}" x2="{high_x}" y1="50%" y2="50%"/><circle cx="{mean_x}" cy="50%" r="4"/></svg>'
    )
