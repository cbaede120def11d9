"""Tells whether two stages are the same work: canonical JSON, its hash, and the difference of two records."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

METHOD_VERSION = 1
"""A part of every stage key. It is raised when a change to ``method/`` changes the numbers of a stage."""


def canonical_json(document: Any) -> str:
    """Return JSON with sorted keys and no blanks: equal documents give equal text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=True)


def digest(document: Any) -> str:
    """Return the first 128 bits of the SHA-256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:32]


def non_default(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model that differ from their defaults, and always the discriminator ``type``.

    A field that is added later and left at its default therefore does not change old keys (design §2.2).
    """
    fields = model.model_dump(mode="json", exclude_defaults=True)
    return fields | model.model_dump(include={"type"})


def field_diff(left: Any, right: Any, path: str = "") -> Iterator[str]:
    """Yield a line for every leaf in which two JSON documents differ: ``training.learning_rate: 0.001 -> 0.002``."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            below = f"{path}.{key}" if path else key
            yield from field_diff(left.get(key, "(default)"), right.get(key, "(default)"), below)
    elif left != right:
        yield f"{path}: {_show(left)} -> {_show(right)}"


def _show(value: Any) -> str:
    """Return JSON, with infinity as a job file writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return value if value == "(default)" else "inf" if value == math.inf else json.dumps(value)
