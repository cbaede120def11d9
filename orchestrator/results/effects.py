"""What a searched field does to exact match at the end of the trials, value by value, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from orchestrator.config import Scalar
from orchestrator.results.findings import Findings

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
