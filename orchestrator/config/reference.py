"""Every field of a job file as Markdown, from the models themselves, for ``stepwise schema --markdown``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.config.job import Job


def reference() -> str:
    """A heading and a table of fields for the job and each of its tables."""
    schema = Job.model_json_schema()
    found = ["# The job file", "", schema["description"], "", *_table(schema["properties"], schema)]
    for name, field in schema["properties"].items():
        for section in _sections(field, schema):
            kind = section["properties"].get("type", {}).get("const")
            heading = f"`[{name}]`" + (f' with `type = "{kind}"`' if kind else "")
            found += ["", f"## {heading}", "", section["description"], "", *_table(section["properties"], schema)]
    return "\n".join(found) + "\n"


def _table(fields: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    yield "| field | allowed | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in fields.items():
        if not list(_sections(field, schema)):
            meaning = " ".join(field.get("description", "").split()).replace("``", "`").replace("|", "\\|")
            yield f"| `{name}` | {_allowed(field, schema)} | {_default(field)} | {meaning} |"


def _sections(field: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tables a field may hold."""
    for choice in (field, *field.get("anyOf", ()), *field.get("oneOf", ())):
        if name := choice.get("$ref", "").rpartition("/")[2]:
            yield schema["$defs"][name]


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return "required"
    value = field["default"]
    text = {None: "", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else value
    return f"`{text}`" if text != "" else ""


def _allowed(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Types and limits in a few words."""
    choices = [choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null"]
    return " or ".join(dict.fromkeys(_limits(choice) for choice in choices))


def _limits(choice: dict[str, Any]) -> str:
    if "enum" in choice or "const" in choice:
        return ", ".join(f"`{value}`" for value in choice.get("enum", [choice.get("const")]))
    if choice.get("type") == "array":
        inner = choice.get("items", {})
        return f"list of {_limits(inner)}" if inner else "list"
    if choice.get("type") == "object":
        return "table"
    limits = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    parts = [f"{sign} {choice[key]:g}" for key, sign in limits if key in choice and abs(choice[key]) < 2**31 - 1]
    word = {"integer": "whole number", "number": "number", "boolean": "true, false", "string": "text"}
    return " ".join([word.get(choice.get("type", ""), "any"), ", ".join(parts)]).strip()
