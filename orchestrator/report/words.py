"""How the report writes methods, numbers and times: the same in every table, picture and sentence."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.config import Method

LABELS: dict[Method, str] = {
    "stepwise": "Stepwise Internalization",
    "explicit_cot": "Explicit CoT",
    "no_cot": "No CoT",
    "icot_kd": "ICoT-KD",
}
"""Every method's name, in the order of legends and sentences."""


def exact(value: float) -> str:
    """Exact match."""
    return f"{value:.3f}"


def tokens(value: float) -> str:
    """A mean number of tokens."""
    return f"{value:,.1f}".removesuffix(".0")


def rate(value: float) -> str:
    """Examples per second."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def speedup(value: float | None) -> str:
    """A ratio of rates, or a dash where there is nothing to compare with."""
    return "-" if value is None else f"{value:.2f}x"


def minutes(seconds: float) -> str:
    """A duration in minutes."""
    return f"{seconds / 60:,.1f}"


def time(seconds: float) -> str:
    """A duration in the largest unit that leaves at least one of it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def utc(timestamp: float) -> str:
    """Seconds since the epoch as a date and a time of day."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
