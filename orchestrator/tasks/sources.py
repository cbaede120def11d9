"""Reading examples as they lie: the reference's text format, JSON lines, Parquet, a Hugging Face dataset.

Whatever is wrong is an ``InputError`` with the file and the line (of Parquet and datasets: the row,
counted from 1), before anything is queued. A value is the text that stood there: nothing guesses
at columns, and what stands for a missing value is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
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
MOST_EXACT = 2**53
"""Below it every whole number is a float of its own."""

FOLDER = 'put it into a folder of its own as train{0} and give task.dataset = "FOLDER", task.train = "train"'
UNPACK = "unpack it (`{0} {1}`) and name what comes out"
TAKEN_BY = {
    ".csv": FOLDER + "; or write it as .jsonl",
    ".tsv": FOLDER + "; or write it as .jsonl",
    ".json": "write one object a line and call it .jsonl; a list of objects: " + FOLDER,
    ".gz": UNPACK.replace("{0}", "gunzip"),
    ".bz2": UNPACK.replace("{0}", "bunzip2"),
    ".xz": UNPACK.replace("{0}", "unxz"),
    ".zst": UNPACK.replace("{0}", "unzstd"),
    ".zip": UNPACK.replace("{0}", "unzip"),
}
"""What takes the formats that no reader here does: ``{0}`` is the suffix, ``{1}`` the file."""


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
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        found = f"{name} is not one of the known formats"
        known = f"give a file that ends in {', '.join(_READERS)}"
        fix = f"{known}; {TAKEN_BY[suffix].format(suffix, path.name)}" if suffix in TAKEN_BY else known
        raise InputError(Problem("DAT003", f"task.{split}", found, fix))
    _check_file(path, f"task.{split}")
    return reader(path, task)


def stamp(task: ExampleSource, split: Split) -> tuple[int, int] | None:
    """Return what changes when a local file does: size and time."""
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
    return _from_objects(((place, _parsed(line, place)) for place, line in _lines(path)), task)


def _from_objects(rows: Iterable[tuple[str, Any]], task: TextTask | Gsm8kTask) -> Iterator[Raw]:
    """Examples of JSON objects with their places. The first one says whether there are CoTs."""
    columns = None
    for place, row in rows:
        if not isinstance(row, dict):
            raise InputError(Problem("DAT016", place, "not a JSON object", "write one object a line"))
        columns = columns or _columns(task, row.keys())
        if task.cot_column in row and task.cot_column not in columns:
            found = f"has a column {task.cot_column!r}, which the first example has not"
            raise InputError(Problem("DAT006", place, found, "give it to all examples or to none"))
        _check_columns(columns, row.keys(), place)
        yield _picked(task, columns, row, place)


def _parsed(text: str, place: str) -> Any:
    """JSON whose numbers are the text that stood there. NaN and the infinities, which are no JSON, are floats."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=float)
    except (ValueError, RecursionError) as error:
        found = f"not JSON: {error}"
        raise InputError(Problem("DAT016", place, found, "write one object a line")) from None


def _from_parquet(path: Path, task: TextTask | Gsm8kTask) -> Iterator[Raw]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = _columns(task, names)
            _check_columns(columns, names, str(path))
            batches = file.iter_batches(ROWS_AT_A_TIME, columns=list(columns))
            rows = (row for batch in batches for row in _python_rows(batch))
            for number, row in enumerate(rows, 1):
                yield _picked(task, columns, row, f"{path}:{number}")
    except (pa.ArrowException, OSError) as error:
        found = f"not a Parquet file: {first_line(error)}"
        raise InputError(Problem("DAT017", str(path), found, "write it again")) from None


def _python_rows(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a batch. A short float is the number that it was written as: 0.1, not 0.10000000149."""
    values = [
        [float(str(value)) for value in column.to_numpy(zero_copy_only=False)]
        if pa.types.is_float16(column.type) or pa.types.is_float32(column.type)
        else column.to_pylist()
        for column in batch.columns
    ]
    for row in zip(*values, strict=True):
        yield dict(zip(batch.schema.names, row, strict=True))


def _from_dataset(task: TextTask | Gsm8kTask, split: str) -> Iterator[Raw]:
    """Text formats are read as text: what guesses at columns makes 7 of 007, and 39.0 of 39."""
    import datasets
    from datasets.packaged_modules.csv.csv import CsvConfig
    from datasets.packaged_modules.json.json import JsonConfig

    datasets.disable_progress_bars()
    named = {"path": task.dataset, "name": task.subset, "revision": task.revision}
    place, options = f"{task.dataset}[{split}]", {}
    with _loading(task, split):
        config = datasets.load_dataset_builder(**named).config
        if isinstance(config, JsonConfig):
            files = {str(name): list(files) for name, files in config.data_files.items()}
            return _from_objects(_json_rows(files, config.field, split, place), task)
        if isinstance(config, CsvConfig):
            splits = datasets.load_dataset(**named, nrows=1).values()
            names = {name for found in splits for name in found.column_names}
            options = {"converters": dict.fromkeys(sorted(names), str), "na_filter": False}
        rows = datasets.load_dataset(**named, split=split, **options)
    return _from_columns(rows, task, place)


def _from_columns(rows: Any, task: TextTask | Gsm8kTask, place: str) -> Iterator[Raw]:
    columns = _columns(task, rows.column_names)
    _check_columns(columns, rows.column_names, place)
    batches = rows.select_columns(list(columns)).with_format("arrow").iter(ROWS_AT_A_TIME)
    found = (row for batch in batches for row in _python_rows(batch))
    for number, row in enumerate(found, 1):
        yield _picked(task, columns, row, f"{place}:{number}")


def _json_rows(files: dict[str, list[str]], field: str | None, split: str, place: str) -> Iterator[tuple[str, Any]]:
    """The objects of a dataset's JSON files: a line each, or of ``.json`` what the whole file holds."""
    import datasets

    def texts(split: str | None, sample_by: str) -> Any:
        return datasets.load_dataset("text", data_files=files, split=split, sample_by=sample_by, encoding="utf-8-sig")

    if field is None and not any(".json" in Path(file).suffixes for named in files.values() for file in named):
        lines = texts(split, "line")
        places = (f"{place}:{number}" for number in range(1, len(lines) + 1))
        return ((at, _parsed(line["text"], at)) for at, line in zip(places, lines, strict=True) if line["text"].strip())
    documents = texts(None, "document")
    rows = {
        name: [row for text in found["text"] for row in _objects(text, field, place)]
        for name, found in documents.items()
    }
    spans = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(found) for name, found in rows.items()})
    chosen = (row for span in spans for row in rows[span.splitname][span.from_ : span.to])
    return ((f"{place}:{number}", row) for number, row in enumerate(chosen, 1))


def _objects(text: str, field: str | None, place: str) -> list[Any]:
    """Yield what a ``.json`` file holds: a list of objects, one below ``field``, or an object a line."""
    lines = [line for line in text.splitlines() if line.strip()]
    if field is None and not text.lstrip().startswith("["):
        return [_parsed(line, place) for line in lines]
    document = _parsed(text, place)
    return document if field is None else document[field]


@contextmanager
def _loading(task: TextTask | Gsm8kTask, split: str) -> Iterator[None]:
    """Raise what goes wrong with a dataset inside the block as an ``InputError``."""
    import datasets

    try:
        yield
    except (datasets.exceptions.DatasetsError, OSError, ValueError, KeyError, RuntimeError) as error:
        found = f"{task.dataset!r}, split {split!r}, could not be loaded: {first_line(error.__cause__ or error)}"
        fix = "give a dataset and a split that this machine can reach, or local files without task.dataset"
        raise InputError(Problem("DAT009", "task.dataset", found, fix)) from None


def _named_columns(task: TextTask | Gsm8kTask) -> dict[str, str]:
    """The columns that a task names, each with the field that names it."""
    named = {field: getattr(task, field) for field in ("question_column", "cot_column", "answer_column")}
    return {column: field for field, column in named.items() if column}


def _columns(task: TextTask | Gsm8kTask, found: Collection[str]) -> dict[str, str]:
    """The columns to read. Data without a column for the CoT, of a job that names none, have no CoT."""
    named = _named_columns(task)
    if isinstance(task, TextTask) and task.cot_column not in found and task.cot_column == DEFAULT_COT:
        del named[task.cot_column]
    return named


def _check_columns(columns: dict[str, str], found: Collection[str], place: str) -> None:
    missing = [(field, column) for column, field in columns.items() if column not in found]
    if missing:
        there = f"there: {', '.join(map(repr, found)) or 'none'}"
        raise InputError(
            *(
                Problem("DAT006", place, f"no column {column!r} ({there})", f"name another as task.{field}")
                for field, column in missing
            )
        )


def _picked(task: TextTask | Gsm8kTask, columns: Collection[str], row: dict[str, Any], place: str) -> Raw:
    question, answer = (_text(row, column, place) for column in (task.question_column, task.answer_column))
    if task.cot_column is None:
        return Raw(place, question, None, answer)
    return Raw(place, question, _text(row, task.cot_column, place) if task.cot_column in columns else "", answer)


def _text(row: dict[str, Any], column: str, place: str) -> str:
    """A value as it stood there; the items of a list joined by blanks."""
    value = row[column]
    return " ".join(_item(item, column, place) for item in (value if isinstance(value, list) else [value]))


def _item(value: Any, column: str, place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if isinstance(value, float) and value.is_integer() and abs(value) < MOST_EXACT:
            return str(int(value))
        if math.isfinite(value):
            return str(value)
        found = f"column {column!r} holds {value}, which stands for a missing value"
        raise InputError(Problem("DAT007", place, found, "complete the example or remove it"))
    found = f"column {column!r} holds {'nothing' if value is None else f'a {type(value).__name__}'}"
    raise InputError(Problem("DAT007", place, found, "it must hold a text, a number or a list of them"))


DEFAULT_COT = TextTask.model_fields["cot_column"].default

_READERS: dict[str, Callable[[Path, TextTask | Gsm8kTask], Iterator[Raw]]] = {
    ".txt": _from_text,
    ".jsonl": _from_json_lines,
    ".parquet": _from_parquet,
}
