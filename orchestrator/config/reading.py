"""Reads a job file and applies overrides; whatever is wrong with them is said at once."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.config.fields import ExampleSource, PretrainedModel
from orchestrator.config.job import Job
from orchestrator.config.wording import problems
from orchestrator.errors import InputError, Problem

MAX_JOB_BYTES = 1 << 20
SPLITS = ("train", "validation", "test")


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read a TOML job file and apply dotted overrides; files and folders get their full paths.

    Raises ``InputError`` with every problem.
    """
    return placed(read_job(path, overrides))


def placed(job: Job) -> Job:
    """Return the job with full paths, from the current folder on, so that it means the same files anywhere else.

    A relative name of a data set or a model that is no folder here is a Hugging Face id, and stays one.
    """
    task, model = job.task, job.model
    if isinstance(task, ExampleSource):
        names = {"dataset": task.dataset} if task.dataset else {split: getattr(task, split) for split in SPLITS}
        full = {key: _full_path(name, or_id=key == "dataset") for key, name in names.items() if name}
        task = task.model_copy(update=full)
    if isinstance(model, PretrainedModel):
        model = model.model_copy(update={"name": _full_path(model.name, or_id=True)})
    return job.model_copy(update={"task": task, "model": model})


def _full_path(name: str, *, or_id: bool) -> str:
    return name if or_id and not os.path.isdir(name) else os.path.abspath(name)


def read_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job as ``load_job`` does, with the names as they were typed."""
    return _overridden(_read_toml(path), overrides, str(path))


def changed_job(job: Job, overrides: Sequence[str], where: str) -> Job:
    """Return a job with dotted overrides applied. Raises ``InputError`` with every problem, named ``where``."""
    return placed(_overridden(job.model_dump(mode="json", exclude_defaults=True), overrides, where))


def _overridden(document: dict[str, Any], overrides: Sequence[str], where: str) -> Job:
    for override in overrides:
        _apply(document, override)
    job = valid_job(document, where)
    for field, _, value in (override.partition("=") for override in overrides):
        if job.search and field.strip() in job.search.space:
            found = f"is searched over in {where}, which would go on to set it"
            fix = f"write 'search.space.{field.strip()}=[{value.strip()}]'"
            raise InputError(Problem("CFG036", field.strip(), found, fix))
    return job


def valid_job(document: dict[str, Any], where: str) -> Job:
    """The job of a document. Raises ``InputError`` with every problem in it."""
    try:
        return Job.model_validate(document)
    except ValidationError as error:
        raise InputError(*problems(where, error.errors())) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """``schedule.tokens_per_stage=4`` as field and value. Raises ``InputError``."""
    document: dict[str, Any] = {}
    _apply(document, text)
    field = text.partition("=")[0].strip()
    for key in field.split("."):
        document = document[key]
    return field, document


def _read_toml(path: Path) -> dict[str, Any]:
    where = str(path)
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else f"not found (from {Path.cwd()})"
            raise InputError(Problem("CFG001", where, found, _nearby(path)))
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            Problem("CFG001", where, f"cannot be read: {error.strerror}", "check its permissions")
        ) from None
    if len(data) > MAX_JOB_BYTES:
        raise InputError(Problem("CFG026", where, f"{len(data):,} bytes", "a job file has at most 1 MiB"))
    try:
        document = tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise InputError(Problem("CFG003", where, f"byte {error.start} is not UTF-8", "save it as UTF-8")) from None
    except ValueError as error:
        raise InputError(Problem("CFG003", where, f"not TOML: {error}", "see https://toml.io")) from None
    except RecursionError:
        raise InputError(Problem("CFG040", where, "nested too deeply", "a job file has two levels")) from None
    if not document:
        raise InputError(Problem("CFG002", where, "the file is empty", "run `stepwise init` for a template"))
    return document


def _nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path(".")
    near = difflib.get_close_matches(path.name, [p.name for p in folder.glob("*.toml")], 1)
    return f'did you mean "{folder / near[0]}"?' if near else "run `stepwise init` for a template"


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not text.strip() or not all(keys):
        raise InputError(
            Problem(
                "CLI001",
                override,
                "not an override",
                "write key=value, as schedule.tokens_per_stage=4",
            )
        )
    table = document
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(Problem("CLI001", path, f'"{key}" is a value, not a table', "name a field of a table"))
    try:
        table[keys[-1]] = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        table[keys[-1]] = text.strip()
