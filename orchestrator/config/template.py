"""Job files as text: a commented one with every field for ``stepwise init``, and any job as it stands."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestrator.config.job import Job
from orchestrator.config.sections import Section
from orchestrator.config.wording import section_types


def template() -> str:
    """A commented job file with every field at its default, for ``stepwise init``."""
    lines = [f"# {Job.model_fields['version'].description}", "version = 1"]
    values = {"name": '"my-job"', "methods": '["no_cot", "explicit_cot", "stepwise"]', "seeds": "[0]"}
    for key, value in values.items():
        lines += ["", *_comment(Job.model_fields[key].description), f"{key} = {value}"]
    for key, field in Job.model_fields.items():
        for section in section_types(field.annotation)[:1]:
            table = [f"[{key}]", *_template_fields(section)]
            if field.default is None:
                table = [line if line.startswith("#") else f"# {line}" for line in table]
            lines += ["", *_comment(section.__doc__), *table]
    return "\n".join(lines) + "\n"


def as_toml(job: Job) -> str:
    """A job file with what differs from the defaults."""
    fields = job.model_dump(exclude_defaults=True) | {"version": job.version}
    tables = {key: value for key, value in fields.items() if isinstance(value, dict)}
    lines = [f"{key} = {_toml(fields[key])}" for key in sorted(fields.keys() - tables.keys())]
    for key, table in tables.items():
        named = {"type": getattr(job, key).type} | table if "type" in type(getattr(job, key)).model_fields else table
        lines += ["", f"[{key}]", *(f"{inner} = {_toml(value)}" for inner, value in named.items())]
    return "\n".join(lines) + "\n"


def _template_fields(section: type[Section]) -> Iterable[str]:
    for key, field in section.model_fields.items():
        yield from _comment(field.description)
        if field.is_required():
            yield f"{key} = {_toml(field.examples[0])}"
        elif field.default is None:
            yield f"# {key} ="
        else:
            yield f"{key} = {_toml(field.default)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())} }}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _comment(text: str | None) -> list[str]:
    return [f"# {line.strip()}" for line in (text or "").strip().splitlines()]
