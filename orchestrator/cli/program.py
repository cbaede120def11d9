"""The program: a verb, and what it ends with.

Exit codes: 0 done, 1 work failed, 2 bad input, 3 partial (a frontier exists, some trial gave up),
130 interrupted.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

import typer

from orchestrator.cli.output import nobody_reads, prepare
from orchestrator.cli.verbs import app
from orchestrator.environment import reach_this_machine_directly
from orchestrator.errors import FORBIDDEN, INTERRUPTED, StepwiseError
from orchestrator.shown import visible_lines

BAD_INPUT = 2


def main() -> None:
    """Run a verb; print our own errors without a traceback and exit with their code."""
    prepare()
    reach_this_machine_directly()
    try:
        code = _ended(app)
        if code == INTERRUPTED:  # typer takes the KeyboardInterrupt for itself
            _interrupted()
    except StepwiseError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = _interrupted()
    except BrokenPipeError:
        nobody_reads()
        code = 0
    except OSError as error:
        where = error.filename or ("the store, or /tmp" if error.errno == errno.ENOSPC else "output")
        print(visible_lines(f"error[SYS001] {where}: {error.strerror}"), file=sys.stderr)
        code = BAD_INPUT if error.errno in FORBIDDEN else 1
    except Exception as error:
        usage = getattr(error, "exit_code", None)
        if usage is None:
            raise
        print(visible_lines(f"error[CLI002] {error.format_message()}"), file=sys.stderr)
        code = usage
    sys.exit(code or 0)


def _ended(verbs: Callable[..., int | None]) -> int | str | None:
    """Return what a verb ends with, once all its output is written. Raises ``BrokenPipeError`` if nobody reads that."""
    try:
        code: int | str | None = verbs(sys.argv[1:] or ["--help"], standalone_mode=False)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # typer makes an exit code of it
            raise ended.__context__ from None
        code = ended.code
    sys.stdout.flush()
    return code


def _interrupted() -> int:
    print("interrupted; what is committed stays, the same command continues", file=sys.stderr)
    return INTERRUPTED
