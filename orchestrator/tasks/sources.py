"""Reading examples as they lie: the reference's text format, JSON lines, Parquet, a Hugging Face dataset.

Whatever is wrong is an ``InputError`` with the file and the line (of Parquet and datasets: the row,
counted from 1), before anything is queued.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config import ExampleSource, Gsm8kTask, TextTask
from orchestrator.errors import InputError, Problem, first_line
from orchestrator.files import is_pointer
from orchestrator.tasks.base import Split

COT_MARK, ANSWER_MARK = "||", "####"
ROWS_AT_A_TIME = 10_000
MOST_LINE_BYTES = 1 << 20


class Raw(NamedTuple):
    """An example as it was found. Without a column for the CoT, the answer holds ``cot #### answer``."""

    place: str
    question: str
    cot: str | None
    answer: str


def read(task: TextTask | Gsm8kTask, split: Split) -> Iterator[Raw]:
    """The examples of a split, in order."""
    name = getattr(task, split)
    if name is None:
        fix = "name a file or a split there; a job that has run is run again with it, and trains nothing twice"
        raise InputError(Problem("DAT015", f"task.{split}", "not given", fix))
    if task.dataset:
        return _from_dataset(task, name)
    path = Path(name)
    reader = _READERS.get(path.suffix)
    if reader is None:
        found = f"{name} is not one of the known formats"
        raise InputError(Problem("DAT003", f"task.{split}", found, f"give a file that ends in {', '.join(_READERS)}"))
    _check_file(path, f"task.{split}")
    return reader(path, task)


def stamp(task: ExampleSource, split: Split) -> tuple[int, int] | None:
    """What changes when a local file does: size and time."""
    path = Path(getattr(task, split) or "")
    if task.dataset or not path.is_file():
        return None
    return path.stat().st_size, path.stat().st_mtime_ns


def _check_file(path: Path, key: str) -> None:
    if not path.is_file():
        found = f"{path} is a folder" if path.is_dir() else f"{path} not found (from {Path.cwd()})"
        raise InputError(Problem("DAT001", key, found, "name a file, or a Hugging Face dataset with task.dataset"))
    try:
        pointer = is_pointer(path)
    except OSError as error:
        raise InputError(Problem("DAT001", str(path), f"cannot be read: {error.strerror}", "check it")) from None
    if pointer:
        found = "is a Git LFS pointer, not the data"
        raise InputError(Problem("DAT002", str(path), found, "run `git lfs pull` in its repository"))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line that is not blank, with its place."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(partial(file.readline, MOST_LINE_BYTES + 1), b""), 1):
            if len(line) > MOST_LINE_BYTES:
                found = f"the line is longer than {MOST_LINE_BYTES:,} bytes"
                raise InputError(Problem("DAT010", f"{path}:{number}", found, "is it one example a line?"))
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                found = f"byte {error.start} is not UTF-8"
                raise InputError(Problem("DAT004", f"{path}:{number}", found, "save it as UTF-8")) from None
            if text:
                yield f"{path}:{number}", text


def _from_text(path: Path, task: TextTask | Gsm8kTask) -> Iterator[Raw]:
    for place, line in _lines(path):
        parts = line.split(COT_MARK)
        if len(parts) != 2:
            found = f"{COT_MARK!r} occurs {len(parts) - 1} times"
            raise InputError(Problem("DAT005", place, found, "write `question||cot #### answer`, with one `||`"))
        yield Raw(place, parts[0], None, parts[1])


def _from_json_lines(path: Path, task: TextTask | Gsm8kTask) -> Iterator[Raw]:
    for place, line in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            found = f"not JSON: {error}"
            raise InputError(Problem("DAT016", place, found, "write one object a line")) from None
        if not isinstance(row, dict):
            raise InputError(Problem("DAT016", place, "not a JSON object", "write one object a line"))
        _check_columns(task, row.keys(), place)
        yield _picked(task, row, place)


def _from_parquet(path: Path, task: TextTask | Gsm8kTask) -> Iterator[Raw]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(task, file.schema_arrow.names, str(path))
            batches = file.iter_batches(ROWS_AT_A_TIME, columns=list(_columns(task)))
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield _picked(task, row, f"{path}:{number}")
    except (pa.ArrowException, OSError) as error:
        found = f"not a Parquet file: {first_line(error)}"
        raise InputError(Problem("DAT017", str(path), found, "write it again")) from None


def _from_dataset(task: TextTask | Gsm8kTask, split: str) -> Iterator[Raw]:
    rows = _load_dataset(task, split)
    place = f"{task.dataset}[{split}]"
    _check_columns(task, rows.column_names, place)
    for number, row in enumerate(rows.select_columns(list(_columns(task))), 1):
        yield _picked(task, row, f"{place}:{number}")


def _load_dataset(task: TextTask | Gsm8kTask, split: str):
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(task.dataset, task.subset, revision=task.revision, split=split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        found = f"{task.dataset!r}, split {split!r}, could not be loaded: {first_line(error)}"
        fix = "give a dataset and a split that this machine can reach, or local files without task.dataset"
        raise InputError(Problem("DAT009", "task.dataset", found, fix)) from None


def _columns(task: TextTask | Gsm8kTask) -> dict[str, str]:
    """The columns to read, each with the field that names it."""
    named = {field: getattr(task, field) for field in ("question_column", "cot_column", "answer_column")}
    return {column: field for field, column in named.items() if column}


def _check_columns(task: TextTask | Gsm8kTask, found: Collection[str], place: str) -> None:
    missing = [(field, column) for column, field in _columns(task).items() if column not in found]
    if missing:
        there = f"there: {', '.join(map(repr, found)) or 'none'}"
        raise InputError(
            *(
                Problem("DAT006", place, f"no column {column!r} ({there})", f"name another as task.{field}")
                for field, column in missing
            )
        )


def _picked(task: TextTask | Gsm8kTask, row: dict[str, Any], place: str) -> Raw:
    question, answer = (_text(row, column, place) for column in (task.question_column, task.answer_column))
    return Raw(place, question, _text(row, task.cot_column, place) if task.cot_column else None, answer)


def _text(row: dict[str, Any], column: str, place: str) -> str:
    value = row[column]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    found = f"column {column!r} holds {'nothing' if value is None else f'a {type(value).__name__}'}"
    raise InputError(Problem("DAT018", place, found, "it must hold a text, a number or a list of texts"))


_READERS: dict[str, Callable[[Path, TextTask | Gsm8kTask], Iterator[Raw]]] = {
    ".txt": _from_text,
    ".jsonl": _from_json_lines,
    ".parquet": _from_parquet,
}
