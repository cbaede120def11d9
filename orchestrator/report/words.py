"""How methods, numbers and times are written: the same in every table, picture and sentence."""

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
SHORT_LABELS: dict[Method, str] = {**LABELS, "stepwise": "Stepwise"}
"""For tables."""


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


def count(number: int, word: str) -> str:
    """``1 trial``, ``3 trials``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def minutes(seconds: float) -> str:
    """A duration in minutes."""
    return f"{seconds / 60:,.1f}"


def time(seconds: float) -> str:
    """A duration in the largest unit that leaves at least one of it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def duration(seconds: float | None) -> str:
    """What a person watches: ``1:05`` for minutes and seconds, ``2 h 03`` for hours, ``-`` for what is not known."""
    if seconds is None:
        return "-"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def utc(timestamp: float) -> str:
    """Seconds since the epoch as a date and a time of day."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
