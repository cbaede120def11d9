"""Text that others wrote, and how it is shown: in a terminal, in Markdown, in a cell of CSV, in a shell."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

_CONTROL = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""Control characters, what turns the direction of text, and halves of characters."""
_UNSEEN = re.compile(f"[{_CONTROL}]")
_UNSEEN_IN_LINES = re.compile(f"(?![\n\t])[{_CONTROL}]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#|~!&$])")


def visible(text: str) -> str:
    """Return a text in one line that moves no cursor: a control character is written as in Python, ``\\x1b``."""
    return _UNSEEN.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """Return a text whose lines stay lines and whose control characters are written as in Python."""
    return _UNSEEN_IN_LINES.sub(_escaped, text)


def visible_log(text: str) -> str:
    """Return what another program printed: its lines without its colours, and nothing else that a terminal obeys."""
    return visible_lines(_COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape", "surrogatepass").decode()


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it stands, in one line, also in a table."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def code(text: str) -> str:
    """Return a text as Markdown's inline code, also in a table."""
    shown = visible(text).replace("|", "\\|")
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"


def cell(value: Any) -> Any:
    """Return what a cell of CSV holds: of a text that a spreadsheet would take for a formula, the text."""
    if isinstance(value, str) and len(value) > 1 and value[0] in "=+-@\t\r\n":
        return f"'{value}"
    return value


def names_only(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a table of a job with the names of files and folders, and not where they lie."""
    return {
        key: os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value
        for key, value in fields.items()
    }


def command(*words: object) -> str:
    """Return a command of ours to type: ``stepwise`` and its words, quoted where a shell needs it."""
    return shlex.join(["stepwise", *map(str, words)])
