"""What is printed: on a terminal of any width and encoding, or in a pipe that may be closed, and nothing it obeys."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.shown import visible_lines

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

PIPE_WIDTH = 160
"""Where nobody's terminal cuts: a search's trial has a long name."""
LEAST_WIDTH = 80
"""Columns that a table takes. A terminal that has fewer wraps its lines, and shows no live table."""
_ASCII = str.maketrans("▁▂▃▄▅▆▇█─┄┈━│┤┃├┼●○·•␣↵…’‘“”–—×Δλ", "_.,-~=+#-~.-||||+*o.._$.''\"\"--xDl")
"""Our own characters, each as one that every terminal has."""


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wanted = error.object[error.start : error.end].translate(_ASCII)
    return "".join(char if char.isascii() else "?" for char in wanted), error.end


codecs.register_error("stepwise", _replaced)


def prepare() -> None:
    """Let standard output and error replace what their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="stepwise")


def nobody_reads() -> None:
    """Send what is still printed nowhere: the pipe was closed, as ``| head`` does."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def print_json(document: BaseModel | list[Any] | dict[str, Any]) -> None:
    """Print a document in ASCII: every terminal shows it and none obeys it."""
    plain = document if isinstance(document, list | dict) else json.loads(document.model_dump_json())
    print(json.dumps(plain, indent=1))


def write_lines(lines: Iterable[str]) -> None:
    """Write lines as they stand, in UTF-8 whatever the terminal has: they are data."""
    sys.stdout.flush()
    for line in lines:
        sys.stdout.buffer.write(f"{line}\n".encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()


def console() -> Console:
    """Output as wide as the terminal, but for narrow ones; of fixed width in a pipe."""
    from rich.console import Console
    from rich.text import Text

    terminal = sys.stdout.isatty()
    narrow = terminal and shutil.get_terminal_size().columns < LEAST_WIDTH

    class Output(Console):
        """Shows text of others without what a terminal obeys; outlives a closed pipe, as the work does."""

        def on_broken_pipe(self) -> None:
            nobody_reads()

        @property
        def is_dumb_terminal(self) -> bool:
            return narrow or super().is_dumb_terminal

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible_lines(text), **options)

    width = LEAST_WIDTH if narrow else None if terminal else PIPE_WIDTH
    return Output(width=width, markup=False, highlight=False, soft_wrap=True)
