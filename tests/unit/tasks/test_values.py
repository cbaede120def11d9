"""Data as strangers bring them: a value is the text that stood in the file; a missing one is refused with its place."""

from __future__ import annotations

import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TABLE = 'name = "x"\nmethods = ["no_cot", "stepwise"]\n[task]\ntype = "text"\n{}\n[training]\nbatch_size = 1\n'
FILES = 'train = "{0}"\nvalidation = "{0}"'
FOLDER = 'dataset = "{0}"\ntrain = "train"\nvalidation = "train"'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def examples(here: Path, stepwise: Callable[..., Any]) -> Callable[[str, str], list[str]]:
    """The examples of a file or of a dataset's folder, as ``stepwise data`` writes them."""

    def shown(source: str, fields: str = "") -> list[str]:
        task = (FOLDER if Path(source).is_dir() else FILES).format(source)
        Path("job.toml").write_text(TABLE.format(f"{task}\n{fields}"))
        finished = stepwise("data", "job.toml")
        return finished.out.splitlines() if finished.code == 0 else [finished.err]

    return shown


JSON_LINES = """\
{"question": "a", "cot": "1", "answer": 39, "score": NaN}
{"question": "b", "cot": "1", "answer": 1.50}
{"question": "c", "cot": "1", "answer": "007"}
{"question": "d", "cot": "1", "answer": 1e3}
{"question": "e", "cot": [1, "2"], "answer": 12345678901234567890.10}
"""
STOOD_THERE = [
    "a||1 #### 39",
    "b||1 #### 1.50",
    "c||1 #### 007",
    "d||1 #### 1e3",
    "e||1 2 #### 12345678901234567890.10",
]


@pytest.mark.parametrize("source", ["x.jsonl", "lines", "lists"])
def test_json_values_are_the_text_that_stood_there(here: Path, examples: Any, source: str) -> None:
    Path("lines").mkdir()
    Path("lists").mkdir()
    for file in ("x.jsonl", "lines/train.jsonl"):
        Path(file).write_text(JSON_LINES)
    Path("lists/train.json").write_text(f"[{','.join(JSON_LINES.splitlines())}]")
    assert examples(source, "") == STOOD_THERE


@pytest.mark.parametrize("separator", [",", "\t"])
def test_csv_values_are_the_text_that_stood_there(here: Path, examples: Any, separator: str) -> None:
    Path("folder").mkdir()
    rows = [
        ["question", "cot", "answer", "score"],
        ["a", "1", "007", ""],
        ["NA", "", "1.50", "2"],
        ["c", "1", "39", "x"],
    ]
    name = "folder/train.csv" if separator == "," else "folder/train.tsv"
    Path(name).write_text("".join(separator.join(row) + "\n" for row in rows))
    assert examples("folder", "") == ["a||1 #### 007", "NA|| #### 1.50", "c||1 #### 39"]


NUMBERS = {
    "whole": (pa.array([39, 7], pa.int32()), ["39", "7"]),
    "floats that are whole": (pa.array([39.0, 4.5]), ["39", "4.5"]),
    "short floats": (pa.array([0.1, 39.0], pa.float32()), ["0.1", "39"]),
    "decimals": (pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.00")]), ["1.50", "2.00"]),
    "text": (pa.array(["007", "1.50"]), ["007", "1.50"]),
}


@pytest.mark.parametrize("source", ["x.parquet", "folder"])
@pytest.mark.parametrize(("column", "expected"), NUMBERS.values(), ids=NUMBERS)
def test_columns_of_numbers_are_read_as_they_are(
    here: Path, examples: Any, source: str, column: pa.Array, expected: list[str]
) -> None:
    Path("folder").mkdir()
    table = pa.table({"question": ["a", "b"], "cot": ["1", "1"], "answer": column})
    for file in ("x.parquet", "folder/train.parquet"):
        pq.write_table(table, file)
    assert examples(source, "") == [f"{q}||1 #### {answer}" for q, answer in zip("ab", expected, strict=True)]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", "[1, NaN]"])
@pytest.mark.parametrize("source", ["x.jsonl", "folder"])
def test_missing_value_of_json_is_refused_with_its_place(here: Path, examples: Any, source: str, value: str) -> None:
    Path("folder").mkdir()
    lines = f'{JSON_LINES}{{"question": "f", "cot": "1", "answer": {value}}}\n'
    for file in ("x.jsonl", "folder/train.jsonl"):
        Path(file).write_text(lines)
    [refused] = examples(source, "")
    place = "x.jsonl:6" if source == "x.jsonl" else "folder[train]:6"
    assert f"{place}: column 'answer' holds" in refused


@pytest.mark.parametrize("source", ["x.parquet", "folder", "table"])
def test_missing_value_of_a_column_is_refused_with_its_place(here: Path, examples: Any, source: str) -> None:
    Path("folder").mkdir()
    Path("table").mkdir()
    table = pa.table({"question": ["a", "b"], "cot": ["1", "1"], "answer": [1.0, float("nan")]})
    for file in ("x.parquet", "folder/train.parquet"):
        pq.write_table(table, file)
    Path("table/train.csv").write_text("question,cot,answer\na,1,1\nb,1,\n")
    [refused] = examples(source, "")
    place = "x.parquet:2" if source == "x.parquet" else f"{source}[train]:2"
    assert f"{place}: " in refused and "DAT007" in refused


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("x.csv", 'as train.csv and give task.dataset = "FOLDER", task.train = "train"'),
        ("x.tsv", "as train.tsv and give task.dataset"),
        ("x.json", "one object a line and call it .jsonl"),
        ("x.jsonl.gz", "gunzip x.jsonl.gz"),
        ("x.zip", "unzip x.zip"),
    ],
)
def test_format_that_is_not_read_names_what_takes_it(here: Path, examples: Any, name: str, fix: str) -> None:
    Path(name).write_text("")
    [refused] = examples(name, "")
    assert "DAT003" in refused and fix in refused


def test_columns_of_gsm8k_name_its_type(here: Path, examples: Any) -> None:
    Path("x.jsonl").write_text(json.dumps({"question": "Why?", "answer": "2*3=<<2*3=6>>6\n#### 6"}))
    [refused] = examples("x.jsonl", "")
    assert "x.jsonl:1" in refused and 'type = "gsm8k"' in refused


def test_column_of_cots_that_some_examples_lack_is_refused(here: Path, examples: Any) -> None:
    with_cot, without = {"question": "a", "cot": "1", "answer": "2"}, {"question": "a", "answer": "2"}
    for rows in ([with_cot, without], [without, with_cot]):
        Path("x.jsonl").write_text("\n".join(map(json.dumps, rows)))
        [refused] = examples("x.jsonl", "")
        assert "DAT006" in refused and "x.jsonl:2" in refused
