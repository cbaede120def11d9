"""The single models that a person would pick from a frontier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from orchestrator.config import Scalar
from orchestrator.results.frontier import FrontierPoint

IMPLICIT, FAST = "best-implicit", "best-at-2x-speed"
FAST_FACTOR = 2.0
Model = frozenset[tuple[str, Scalar]]


def full_cot_rates(points: Iterable[FrontierPoint]) -> dict[Model, float]:
    """Return the examples per second of writing the whole CoT, by model, where such a stage is committed."""
    rates: dict[Model, list[float]] = {}
    for point in points:
        if point.passed and not point.removed_tokens:
            rates.setdefault(point.model, []).append(point.examples_per_second)
    return {model: median(of_model) for model, of_model in rates.items()}


def winners(points: Sequence[FrontierPoint]) -> dict[str, FrontierPoint]:
    """Return two stepwise models by name, each the most accurate of its kind.

    ``IMPLICIT`` writes no CoT; ``FAST`` is at least twice as fast as writing the whole CoT.
    """
    stepwise = [point for point in points if point.method == "stepwise" and point.passed]
    bases = full_cot_rates(points)
    fast = [p for p in stepwise if p.examples_per_second >= FAST_FACTOR * bases.get(p.model, math.inf)]
    found = {
        IMPLICIT: _best(point for point in stepwise if point.removed_tokens == point.total_tokens),
        FAST: _best(fast),
    }
    return {name: point for name, point in found.items() if point}


def _best(points: Iterable[FrontierPoint]) -> FrontierPoint | None:
    """Return the most accurate; of equals the one that writes least, then the latest."""
    return max(points, key=lambda point: (point.exact_match, -point.generated_tokens, point.step), default=None)
