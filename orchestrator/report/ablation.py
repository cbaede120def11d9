"""What a searched field does: exact match at the end of the trials, value by value, with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator import labels
from orchestrator.config import Scalar
from orchestrator.plan.grid import key_of, text
from orchestrator.report.findings import Findings
from orchestrator.report.interval import interval
from orchestrator.report.markup import Column, Picture, section, table

MOST_VALUES = 12
"""Of a field with more, as one drawn from a range, each value would stand for one trial."""


@dataclass(frozen=True)
class Effect:
    """The trials that had one value of one field, whatever their other fields."""

    field: str
    value: Scalar
    shares: tuple[float, ...]
    """Exact match of each at its end; of one that gave up 0."""

    @property
    def mean(self) -> float:
        return fmean(self.shares)


def effects(findings: Findings) -> tuple[Effect, ...]:
    """By field and value in plan order: fields for which trials with two values or more have ended."""
    ended = [chain for chain in findings.chains if chain.trial.method == "stepwise" and chain.next is None]
    by_field: dict[str, dict[Scalar, list[float]]] = {}
    for chain in ended:
        share = 0.0 if chain.given_up else chain.standing[-1].manifest.metrics.exact_match
        for field, value in chain.trial.settings:
            by_field.setdefault(field, {}).setdefault(value, []).append(share)
    return tuple(
        Effect(field, value, tuple(shares))
        for field, values in by_field.items()
        if 2 <= len(values) <= MOST_VALUES
        for value, shares in values.items()
    )


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
