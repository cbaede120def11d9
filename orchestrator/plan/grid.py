"""The configurations of a search: which settings there are, the job each makes, and how people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from random import Random
from typing import Any

from orchestrator.config import MAX_CONFIGURATIONS, Job, Range, Scalar, Search, valid_job

Setting = tuple[str, Scalar]
"""A dotted job field and its value."""
Settings = tuple[Setting, ...]
"""The settings of a configuration, in the order of the search's space."""

STEPWISE_ONLY = frozenset({"schedule.smoothing_lambda", "schedule.removal_side", "schedule.keep_position"})
"""The fields that change nothing in a baseline, which removes no token."""

_NAMES = {"schedule.type": "schedule", "schedule.smoothing_lambda": "lambda", "schedule.removal_side": "side"}
_SYMBOLS = {"tokens_per_stage": "Δ", "lambda": "λ", "learning_rate": "rate"}
_DIGITS = 4


def configurations(search: Search) -> tuple[Settings, ...]:
    """Return every configuration that is known before anything runs: none if Optuna is to propose them."""
    if search.type == "grid":
        return tuple(_combined(search, [values for values in search.space.values() if isinstance(values, tuple)]))
    if search.type == "optuna":
        return ()
    random, drawn = Random(search.seed), {}  # noqa: S311
    while len(drawn) < (search.configurations or 0):
        drawn[tuple((field, _drawn(values, random)) for field, values in search.space.items())] = None
    return tuple(drawn)


def corners(search: Search) -> tuple[Settings, ...]:
    """Return all choices and ends of ranges, combined; none if those are too many."""
    axes = _axes(search)
    return tuple(_combined(search, axes)) if math.prod(map(len, axes)) <= MAX_CONFIGURATIONS else ()


def extremes(search: Search) -> tuple[Settings, ...]:
    """Return configurations that show whether Optuna may propose any: the corners, or one field varied at a time."""
    if combined := corners(search):
        return combined
    axes = _axes(search)
    first = [axis[0] for axis in axes]
    ones = ([*first[:i], value, *first[i + 1 :]] for i, axis in enumerate(axes) for value in axis)
    return tuple(tuple(zip(search.space, values, strict=True)) for values in ones)


def applied(job: Job, settings: Settings, where: str = "search.space") -> Job:
    """Return the job with these settings and without the search. Raises ``InputError`` if there can be no such job."""
    document = job.model_dump(exclude={"search"})
    for field, value in settings:
        section, key = field.split(".")
        document[section][key] = value
    return valid_job(document, where)


def rounded(value: Scalar, values: Range | tuple[Scalar, ...]) -> Scalar:
    """Return a drawn float with four digits, so that names and reports show exactly the value that was trained."""
    if not isinstance(values, Range) or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), values.low), values.high)


def key_of(field: str) -> str:
    """Return a field without its section."""
    return field.rsplit(".", 1)[-1]


def name_of(field: str) -> str:
    """Return a field as a trial's name has it: its last part, or a shorter word."""
    return _NAMES.get(field, key_of(field))


def path_name(settings: Settings) -> str:
    """Return ``tokens_per_stage2-lambda4-``: safe in a path, different for different settings."""
    joined = (
        name_of(field) + ("_" if isinstance(value, bool | str) else "") + text(value) for field, value in settings
    )
    return "".join(f"{part}-" for part in joined)


def symbols(settings: Settings) -> str:
    """Return ``Δ 2, λ 4``: for tables."""
    return ", ".join(f"{_SYMBOLS.get(name_of(field), name_of(field))} {text(value)}" for field, value in settings)


def sentence(settings: Settings) -> str:
    """Return ``tokens_per_stage=2, smoothing_lambda=4``: for people who will type it."""
    return ", ".join(f"{key_of(field)}={text(value)}" for field, value in settings)


def text(value: Scalar) -> str:
    """Return a value as a job file has it, in few characters and without loss."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return (short if float(short) == value else repr(value)).replace("+", "")
    return str(value)


def _axes(search: Search) -> list[tuple[Scalar, ...]]:
    return [(values.low, values.high) if isinstance(values, Range) else values for values in search.space.values()]


def _combined(search: Search, axes: Sequence[Sequence[Scalar]]) -> list[Settings]:
    return [tuple(zip(search.space, values, strict=True)) for values in product(*axes)]


def _drawn(values: Any, random: Random) -> Scalar:
    if not isinstance(values, Range):
        return values[random.randrange(len(values))]
    if not values.log:
        return random.randint(int(values.low), int(values.high)) if values.whole else _between(values, random.uniform)
    between = _between(values, lambda low, high: math.exp(random.uniform(math.log(low), math.log(high))))
    return round(float(between)) if values.whole else between


def _between(values: Range, draw: Callable[[float, float], float]) -> Scalar:
    return rounded(draw(values.low, values.high), values)
