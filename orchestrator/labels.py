"""The words and colours that people see, the same everywhere: methods, numbers, times, the caption of a picture."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from orchestrator.config import Job, Method

LABELS: dict[Method, str] = {
    "stepwise": "Stepwise Internalization",
    "explicit_cot": "Explicit CoT",
    "no_cot": "No CoT",
    "icot_kd": "ICoT-KD",
}
"""The methods' names, in the order of legends and sentences."""
SHORT_LABELS: dict[Method, str] = {**LABELS, "stepwise": "Stepwise"}
"""The methods' names in tables."""


def exact(value: float) -> str:
    """Return an exact match with three decimals."""
    return f"{value:.3f}"


def tokens(value: float) -> str:
    """Return a mean number of tokens."""
    return f"{value:,.1f}".removesuffix(".0")


def rate(value: float) -> str:
    """Return examples per second."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def speedup(value: float | None) -> str:
    """Return a ratio of rates, or a dash where there is nothing to compare with."""
    return "-" if value is None else f"{value:.2f}x"


def count(number: int, word: str) -> str:
    """Return a number with its word: ``1 trial``, ``3 trials``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def minutes(seconds: float) -> str:
    """Return a duration in minutes."""
    return f"{seconds / 60:,.1f}"


def time(seconds: float) -> str:
    """Return a duration in the largest unit that leaves at least one of it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def duration(seconds: float | None) -> str:
    """Return a time that a person waits for: ``1:05`` minutes and seconds, ``2 h 03``, or ``-`` if it is not known."""
    if seconds is None:
        return "-"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def utc(timestamp: float) -> str:
    """Return seconds since the epoch as a date and a time of day."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon for the blocks' matrices, AdamW for the rest"}


def caption(job: Job) -> Iterator[str]:
    """Yield the sentences below the report's picture and in MLflow's note, about how tokens are removed."""
    if "stepwise" not in job.methods:
        return  # no other method removes anything
    searched = job.search.space if job.search else {}
    if "schedule.type" not in searched:
        kind = job.schedule.type
        if kind == "reference":
            yield "A stage of the reference schedule is one epoch; a removal can fall anywhere in it."
        else:
            yield f"A stage boundary of the {kind} schedule lies just before a removal."
        when = "each as soon as the model has recovered, evenly at the latest" if kind == "adaptive" else "evenly"
        yield f"Inside a stage tokens are removed one by one, {when}."
    if "training.reset_optimizer" not in searched:
        optimizer = "searched" if "training.optimizer" in searched else OPTIMIZERS[job.training.optimizer]
        fate = "rebuilt" if job.training.reset_optimizer else "kept"
        yield f"The optimizer ({optimizer}) is {fate} at every removal."
    smoothing = "searched" if "schedule.smoothing_lambda" in searched else f"{job.schedule.smoothing_lambda:g}"
    yield f"Smoothing offsets (λ = {smoothing}) are drawn per example; validation uses offset 0."


COLOURS: dict[Method, str] = {
    "stepwise": "#0072B2",
    "explicit_cot": "#009E73",
    "no_cot": "#D55E00",
    "icot_kd": "#CC79A7",
}
"""The methods' colours on white, from Okabe and Ito's palette: colour-blind readers can tell them apart."""

LIGHT: dict[str, str] = {
    "paper": "#fff",
    "ink": "#20242b",
    "soft": "#5c6470",
    "line": "#e3e6ea",
    "tint": "#f5f6f8",
    **COLOURS,
}
"""The colours of a light page and of pictures on paper."""

DARK: dict[str, str] = {
    "paper": "#14171c",
    "ink": "#e6e9ee",
    "soft": "#a0a8b4",
    "line": "#2c313a",
    "tint": "#1c2027",
    "stepwise": "#56B4E9",
    "explicit_cot": "#19B98D",
    "no_cot": "#E69F00",
    "icot_kd": "#E3A3C6",
}
"""The colours of a dark page."""
