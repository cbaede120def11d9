"""The program: a verb, and what it ends with.

Exit codes: 0 done, 1 work failed, 2 bad input, 3 partial (a frontier exists, some trial gave up),
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from orchestrator.cli.verbs import app
from orchestrator.errors import INTERRUPTED, StepwiseError

BAD_INPUT = 2
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the user named may not be read or written."""


def main() -> None:
    """Run a verb; print our own errors without a traceback and exit with their code."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:  # typer takes the KeyboardInterrupt for itself
            _interrupted()
    except StepwiseError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = _interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = error.filename or ("the store, or /tmp" if error.errno == errno.ENOSPC else "output")
        print(f"error[SYS001] {where}: {error.strerror}", file=sys.stderr)
        code = BAD_INPUT if error.errno in FORBIDDEN else 1
    except Exception as error:
        usage = getattr(error, "exit_code", None)
        if usage is None:
            raise
        print(f"error[CLI002] {error.format_message()}", file=sys.stderr)
        code = usage
    sys.exit(code or 0)


def _interrupted() -> int:
    print("interrupted; what is committed stays, the same command continues", file=sys.stderr)
    return INTERRUPTED
