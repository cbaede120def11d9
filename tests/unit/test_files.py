"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.files import replace_file, replacing


def test_replaced_file_is_the_new_one_and_nothing_else_is_left(tmp_path: Path) -> None:
    replace_file(tmp_path / "folder" / "x.json", "old")
    replace_file(tmp_path / "folder" / "x.json", "new")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["x.json"]
    assert (tmp_path / "folder" / "x.json").read_text() == "new"


def test_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("old")
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "x.csv") as written:
        written.write_text("ha")
        raise OSError("full")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.csv": "old"}
