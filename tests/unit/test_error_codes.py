"""A code is one kind of problem: a user looks it up and finds one meaning."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "orchestrator"
CODE = re.compile("[A-Z]{3}[0-9]{3}")

SHARED = {
    "CFG032": "not a field that may be changed: by a search, by a fork",
    "CLU004": "the token is not one: none, or refused",
    "DAT004": "not text of the kind it should be",
    "DAT005": "a line without its separators",
    "DAT007": "a field without text",
    "DAT012": "a separator stands in an example",
    "FRK005": "a stage that nothing can begin from",
    "STO002": "the store does not hold what was asked for",
}
"""Codes that two modules say, and the one thing they say."""


def test_code_of_two_modules_is_one_kind_of_problem():
    said: dict[str, set[Path]] = defaultdict(set)
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                said[node.value].add(module)
    assert {code for code, modules in said.items() if len(modules) > 1} == set(SHARED)
