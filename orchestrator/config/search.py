"""The ``[search]`` table: which fields vary, over what, and what makes one configuration better than another."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.config.fields import Schedule, ScratchModel, Section, Seed, Training, infinity

MAX_CONFIGURATIONS = 256

SEARCHABLE = tuple(
    f"{name}.{key}"
    for name, section in (("schedule", Schedule), ("training", Training), ("model", ScratchModel))
    for key in section.model_fields
    if (name, key) != ("model", "type")
)
"""The fields a search may vary: those that change a trial but not its data."""


def _searchable(field: str) -> str:
    if field not in SEARCHABLE:
        same = [known for known in SEARCHABLE if known.endswith(f".{field.rsplit('.', 1)[-1]}")]
        near = same or difflib.get_close_matches(field, SEARCHABLE, 1, cutoff=0.5)
        hint = f'did you mean "{near[0]}"?' if near else "name a field of schedule, training or a scratch model"
        raise PydanticCustomError("search_field", f"not a field that a search varies; {hint}")
    return field


class Range(Section):
    """Values from ``low`` to ``high``, both included; whole numbers if both ends are. Drawn floats have 4 digits."""

    low: int | float
    """The smallest value."""
    high: int | float
    """The largest value."""
    log: bool = False
    """Draw evenly in the logarithm, as suits learning rates."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise PydanticCustomError("conflict", f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise PydanticCustomError("conflict", f"a logarithm needs low above 0, found {self.low:g}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("scalar", "expected a number, a word, true or false")
    return infinity(value)


Scalar = bool | int | float | str
Value = Annotated[Any, BeforeValidator(_scalar, json_schema_input_type=Scalar)]
Choices = Annotated[tuple[Value, ...], Field(strict=False, min_length=1, max_length=MAX_CONFIGURATIONS)]
Values = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(lambda values: "range" if isinstance(values, dict | Range) else "choices"),
]


def _flat(space: Any) -> Any:
    """``schedule.x = [...]`` nests in TOML; a quoted ``"schedule.x"`` does not. Both mean the same field."""
    if not isinstance(space, dict):
        return space
    flat: dict[str, Any] = {}
    for key, value in space.items():
        if isinstance(value, dict) and not value.keys() & Range.model_fields.keys():
            flat |= {f"{key}.{inner}": values for inner, values in value.items()}
        else:
            flat[key] = value
    return flat


class Search(Section):
    """Which configurations are tried: every one with every seed, and what makes one better than another."""

    type: Literal["grid", "random", "optuna"] = "grid"
    """``grid``: every combination. ``random``: so many drawn when the job is planned. ``optuna``: proposed
    one after another by Optuna's TPE, which learns from the configurations that are finished."""
    configurations: Annotated[int, Field(ge=1, le=MAX_CONFIGURATIONS)] | None = None
    """The number of configurations that are drawn or proposed. For random and optuna only."""
    objective: Literal["area", "removed_tokens"] = "area"
    """``area``: under exact match over removed tokens, 1 where every stage is perfect. ``removed_tokens``: the most
    tokens removed with an exact match of at least ``min_accuracy``."""
    min_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Exact match that counts for the objective ``removed_tokens``."""
    aggregate: Literal["mean", "worst"] = "mean"
    """The number that stands for all seeds of a configuration: their mean, or the worst one."""
    prune: bool = False
    """Stop configurations that stay behind the best third at equal removed tokens. A small model's late recovery
    cannot always be foreseen, so nothing is stopped unless asked for."""
    seed: Seed = 0
    """The seed of the drawing or of Optuna's proposals. Training does not use it."""
    space: Annotated[
        dict[Annotated[str, AfterValidator(_searchable)], Values],
        Field(min_length=1, max_length=6, examples=[{"schedule.tokens_per_stage": [1, 2]}]),
        BeforeValidator(_flat, json_schema_input_type=dict[str, Values | dict[str, Values]]),
    ]
    """Fields of schedule, training or a scratch model: each with a list of choices, or for random and optuna
    a range as ``{ low = 1e-4, high = 1e-3, log = true }``."""

    @model_validator(mode="after")
    def _agrees(self) -> Search:
        if problems := list(self._problems()):
            raise PydanticCustomError("conflict", "; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        for field, values in self.space.items():
            if isinstance(values, Range):
                if self.type == "grid":
                    yield f"{field} is a range; a grid needs a list of choices"
            elif len(set(values)) < len(values):
                yield f"{field} names the same choice twice"
        size = self.size
        if self.type == "grid":
            if self.configurations is not None:
                yield "configurations is for random and optuna; a grid has every combination, remove it"
            if size > MAX_CONFIGURATIONS:
                yield f"{size:,} combinations are more than {MAX_CONFIGURATIONS}; name fewer choices or draw"
        elif self.configurations is None:
            yield f"configurations is missing; say how many are {'drawn' if self.type == 'random' else 'proposed'}"
        elif self.configurations > size:
            yield f"configurations is {self.configurations}, the space has only {size}; lower it"

    @property
    def size(self) -> float:
        """Count the different configurations."""
        return math.prod(
            len(values) if isinstance(values, tuple) else values.high - values.low + 1 if values.whole else math.inf
            for values in self.space.values()
        )
