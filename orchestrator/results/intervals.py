"""95 % intervals: how sure a figure is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

Z95 = 1.959964
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""The 97.5 % quantiles of Student's t with 1 to 15 degrees of freedom."""


def wilson(share: float, examples: int) -> tuple[float, float]:
    """Return the interval of a share of so many independent examples (Wilson 1927)."""
    if not examples:
        return 0.0, 1.0
    spread = Z95**2 / examples
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / examples + spread / (4 * examples))
    return max(0.0, centre - half), min(1.0, centre + half)


def student(shares: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the mean of two or more seeds (Student's t), cut to what a share can be."""
    freedom = len(shares) - 1
    quantile = T95[freedom - 1] if freedom <= len(T95) else Z95 * (1 + (Z95**2 + 1) / (4 * freedom))
    half = quantile * stdev(shares) / math.sqrt(len(shares))
    return max(0.0, fmean(shares) - half), min(1.0, fmean(shares) + half)


def middle(shares: Sequence[float]) -> tuple[float, float]:
    """Return the ends between which nine in ten of the seeds lie; of fewer than 20 seeds all do."""
    ordered = sorted(shares)
    cut = len(ordered) // 20
    return ordered[cut], ordered[-1 - cut]


def interval(shares: Sequence[float], examples: int) -> tuple[float, float]:
    """Return Wilson's interval for one seed; for several Student's, but no narrower than Wilson's of their mean."""
    measured = wilson(fmean(shares), examples)
    spread = student(shares) if len(shares) > 1 else measured
    return min(measured[0], spread[0]), max(measured[1], spread[1])
