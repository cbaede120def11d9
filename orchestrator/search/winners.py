"""The single models that a person would pick from a frontier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from orchestrator.store import FrontierPoint

IMPLICIT, FAST = "best-implicit", "best-at-2x-speed"
FAST_FACTOR = 2.0


def full_cot_rate(points: Iterable[FrontierPoint]) -> float | None:
    """Examples per second of writing the whole CoT; None where no such stage is committed."""
    rates = [point.examples_per_second for point in points if point.passed and not point.removed_tokens]
    return median(rates) if rates else None


def winners(points: Sequence[FrontierPoint]) -> dict[str, FrontierPoint]:
    """By name: the most accurate stepwise model that writes no CoT, and the one at twice the speed of writing all."""
    stepwise = [point for point in points if point.method == "stepwise" and point.passed]
    base = full_cot_rate(points)
    fast = [point for point in stepwise if base and point.examples_per_second >= FAST_FACTOR * base]
    found = {
        IMPLICIT: _best(point for point in stepwise if point.removed_tokens == point.total_tokens),
        FAST: _best(fast),
    }
    return {name: point for name, point in found.items() if point}


def _best(points: Iterable[FrontierPoint]) -> FrontierPoint | None:
    """The most accurate; of equals the one that writes least, then the latest."""
    return max(points, key=lambda point: (point.exact_match, -point.generated_tokens, point.step), default=None)
