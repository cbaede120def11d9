"""A stage's exact match on examples of any split, for people and as JSON."""

from __future__ import annotations

from pydantic import BaseModel, computed_field

from orchestrator import labels
from orchestrator.results.intervals import wilson


class Evaluated(BaseModel, frozen=True):
    """A stage, measured once more."""

    stage: str
    stage_key: str
    split: str
    examples: int
    removed_tokens: int
    total_tokens: int
    exact_match: float

    @computed_field
    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval that measuring on so many examples leaves (Wilson)."""
        return wilson(self.exact_match, self.examples)

    @property
    def line(self) -> str:
        """The result in one line."""
        low, high = map(labels.exact, self.interval)
        return (
            f"{self.stage}: {self.removed_tokens} of {self.total_tokens} CoT tokens removed, exact match "
            f"{labels.exact(self.exact_match)} ({low} to {high}) on {self.examples:,} {self.split} examples"
        )
