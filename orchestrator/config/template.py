"""Job files that are written, not read: the commented one of ``stepwise init``, and any job as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestrator.config.fields import Section
from orchestrator.config.job import Job
from orchestrator.config.wording import section_types


def template() -> str:
    """A commented job file with every field at its default, for ``stepwise init``; of further types what they need."""
    lines = [f"# {Job.model_fields['version'].description}", "version = 1"]
    values = {"name": '"my-job"', "methods": '["no_cot", "explicit_cot", "stepwise"]', "seeds": "[0]"}
    for key, value in values.items():
        lines += ["", *_comment(Job.model_fields[key].description), f"{key} = {value}"]
    lines += ["", *_comment(Job.model_fields["max_steps"].description), "# max_steps ="]
    for key, field in Job.model_fields.items():
        types = section_types(field.annotation)
        for section in types[:1]:
            table = [f"[{key}]", *_template_fields(section)]
            if field.default is None:
                table = [line if line.startswith("#") else f"# {line}" for line in table]
            lines += ["", *_comment(section.__doc__), *table]
        for section in types[1:]:
            lines += ["", *_comment(f"Instead: {section.__doc__}"), f"# [{key}]", *_comment(_least(section))]
    return "\n".join(lines) + "\n"


def job_toml(job: Job) -> str:
    """A job as the file that makes it, without the fields at their defaults."""
    document = job.model_dump(exclude_defaults=True)
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    lines = [f"{key} = {_toml(value)}" for key, value in document.items() if key not in tables]
    for key, fields in tables.items():
        kind = {"type": getattr(job, key).type} if key in ("task", "model") else {}
        space = fields.pop("space", {})
        for table, values in ((key, {**kind, **fields}), (f"{key}.space", space)):
            if values:
                lines += ["", f"[{table}]", *(f"{name} = {_toml(value)}" for name, value in values.items())]
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


def _least(section: type[Section]) -> str:
    """The fields without which a table of this type is not one."""
    fields = {key: field for key, field in section.model_fields.items() if key == "type" or field.is_required()}
    ordered = sorted(fields, key=lambda key: key != "type")
    values = {key: fields[key].examples[0] if fields[key].examples else fields[key].default for key in ordered}
    return "\n".join(f"{key} = {_toml(value)}" for key, value in values.items())


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
