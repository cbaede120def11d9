"""A code is one kind of problem: a user looks it up in orchestrator/ERRORS.md and finds one meaning."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "orchestrator"
PAGE = (PACKAGE / "ERRORS.md").read_text()
CODE = re.compile(r"([A-Z]{3}[0-9]{3})|error\[([A-Z]{3}[0-9]{3})\].*")
SHARED = {"CKP009", "CKP010", "DAT004", "DAT005", "DAT007", "DAT012", "FRK005", "STO002"}
"""The codes that two modules use. A further one is nearly always a second meaning."""


def said() -> Iterator[tuple[str, Path]]:
    """Yield every code that the source writes out, with its module."""
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = CODE.fullmatch(node.value)
                if found and found[0] != "AVX512":  # a CPU's instructions
                    yield found[1] or found[2], module


def rows() -> list[tuple[str, str, str]]:
    """Return the table's rows: code, meaning, what to do."""
    found = re.findall(r"^\| ([A-Z]{3}[0-9]{3}) \| (.+?\.) \| (.+?\.) \|$", PAGE, re.MULTILINE)
    assert len(found) == len(re.findall("^[|] [A-Z]{3}[0-9]", PAGE, re.MULTILINE))
    return found


def test_table_and_source_name_the_same_codes():
    listed, written = [code for code, *_ in rows()], {code for code, _ in said()}
    assert sorted(listed) == sorted(written)


def test_code_has_one_meaning_and_a_meaning_one_code():
    meanings = [meaning for _, meaning, _ in rows()]
    assert len(set(meanings)) == len(meanings)


def test_code_of_two_modules_is_known():
    modules: dict[str, set[Path]] = defaultdict(set)
    for code, module in said():
        modules[code].add(module)
    assert {code for code, named in modules.items() if len(named) > 1} == SHARED
