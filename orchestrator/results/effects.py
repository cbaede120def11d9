"""The effect of a searched field on exact match at the end of the trials, value by value."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from orchestrator.config import Scalar
from orchestrator.results.findings import Findings

MOST_VALUES = 12
"""The most values of a field that are compared: of one drawn from a range, each value would stand for one trial."""


@dataclass(frozen=True)
class Effect:
    """The trials that had one value of one field, whatever their other fields."""

    field: str
    value: Scalar
    shares: tuple[float, ...]
    """The exact match of each trial at its end; 0 for one that gave up."""

    @property
    def mean(self) -> float:
        return fmean(self.shares)


def effects(findings: Findings) -> tuple[Effect, ...]:
    """Return the effects in plan order, for fields of which trials with two values or more have ended."""
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
