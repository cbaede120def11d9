"""Pydantic's errors about a job file in plain words: where, what was found, what is allowed."""

from __future__ import annotations

import difflib
import math
from typing import Any, get_args

from pydantic_core import ErrorDetails

from orchestrator.config.fields import Section
from orchestrator.config.job import Job
from orchestrator.config.search import Range
from orchestrator.errors import Problem, without_password

_CODES = {
    "extra_forbidden": "CFG006",
    "missing": "CFG007",
    "finite_number": "CFG009",
    "int_type": "CFG010",
    "string_pattern_mismatch": "CFG031",
    "literal_error": "CFG019",
    "union_tag_invalid": "CFG019",
    "union_tag_not_found": "CFG019",
    "password": "CFG028",
    "conflict": "CFG029",
    "search_field": "CFG032",
}


_KINDS = {"model_type": "expected a table", "tuple_type": "expected a list"}


def problems(file: str, details: list[ErrorDetails]) -> list[Problem]:
    """One problem for every cause."""
    return [_problem(file, detail) for detail in _causes(details)]


def _causes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the complaint that a list is empty once its wrong items are left out."""
    inner = {detail["loc"][:-1] for detail in details}
    return [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inner]


def _problem(file: str, detail: ErrorDetails) -> Problem:
    keys = [str(key) for key in detail["loc"]]
    if len(keys) > 1 and keys[1] in _TAGS.get(keys[0], ()):
        del keys[1]
    if detail["type"] == "union_tag_invalid":
        keys.append("type")
    if keys[:2] == ["search", "space"]:
        keys = keys[:3] + [key for key in keys[3:] if key not in ("choices", "range", "[key]")]
    where = f"{file}: {'.'.join(keys) or 'the job'}"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Problem(_CODES[kind], where, "unknown key", _near_miss(keys))
    if keys == ["version"]:
        return Problem("CFG030", where, f"version {_show(detail['input'])}", "this program reads version 1")
    if kind == "missing":
        return Problem(_CODES[kind], where, "missing", "`stepwise schema` describes it")
    if kind == "union_tag_invalid":
        found = f"unknown type {_show(detail['ctx']['tag'])}"
        return Problem(_CODES[kind], where, found, f"allowed: {detail['ctx']['expected_tags']}")
    message = _KINDS.get(kind) or (detail["msg"][0].lower() + detail["msg"][1:]).replace("tuple", "list")
    if kind not in ("conflict", "password", "search_field"):
        message += f", found {_show(detail['input'])}"
    return Problem(_CODES.get(kind, "CFG008"), where, message)


def _show(value: Any) -> str:
    try:
        text = repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to show"
    text = without_password(text)  # before it is cut short: half a password would not be recognized
    return text if len(text) <= 80 else text[:77] + "..."


def _near_miss(keys: list[str]) -> str:
    if keys[-1] == "trust_remote_code":
        return "code from a model's repository is never run here"
    known = _fields_at(keys[:-1])
    if keys[-1] in known:
        return f"not a field of this type of {keys[0]}; remove it"
    near = difflib.get_close_matches(keys[-1], known, 1, cutoff=0.5)
    elsewhere = [f"{name}.{keys[-1]}" for name, fields in _SECTIONS.items() if keys[-1] in fields]
    if meant := [*elsewhere, *near]:  # a field of this very name before one that is like it
        return f'did you mean "{meant[0]}"?'
    return f"allowed: {', '.join(known)}"


def _fields_at(path: list[str]) -> list[str]:
    if path[:2] == ["search", "space"]:
        return list(Range.model_fields)
    return sorted(_SECTIONS.get(path[0], ())) if path else list(Job.model_fields)


def section_types(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [t for argument in get_args(annotation) for t in section_types(argument)]


_SECTIONS = {
    name: {key for section in sections for key in section.model_fields}
    for name, field in Job.model_fields.items()
    if (sections := section_types(field.annotation))
}

_TAGS = {
    name: {tag for section in sections for tag in get_args(section.model_fields["type"].annotation)}
    for name, field in Job.model_fields.items()
    if len(sections := section_types(field.annotation)) > 1
}
"""The tags that pydantic puts between a table and its field where the table's type decides its fields."""
