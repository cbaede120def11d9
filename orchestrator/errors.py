"""Every error a user can meet, as one picklable tree.

    StepwiseError            exit 1: the work failed
    ├── InputError           exit 2: a job file, an argument or a data file is wrong
    ├── StoreError           exit 2: the store cannot be trusted as it is
    └── TrialError           exit 1: a trial could not finish

An error holds one or more problems. A problem says what was found, where, and what to do next.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.shown import visible_lines


def without_password(text: str) -> str:
    """A text that may be shown: what stands between ``user:`` and ``@`` in a URI is not."""
    return re.sub(r"(://[^/@\s]*:)[^\s]*@", r"\1***@", text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: ``code`` is stable, ``where`` names file, line or key. Shows no password."""

    code: str
    where: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        fix = f"; {self.fix}" if self.fix else ""
        return visible_lines(without_password(f"error[{self.code}] {self.where}: {self.found}{fix}"))


def first_line(error: BaseException) -> str:
    """What an exception says, in a line; of one that says nothing, what it is."""
    return (str(error).strip() or repr(error)).splitlines()[0]


FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What is named may not be read or written."""
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""


class StepwiseError(Exception):
    """Base of the tree. ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: Sequence[Problem] = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class InputError(StepwiseError):
    """What the user gave cannot be used. Nothing was queued or written."""

    exit_code = 2


class StoreError(StepwiseError):
    """A file in the store is missing, damaged or not ours."""

    exit_code = 2


class TrialError(StepwiseError):
    """A trial stopped before its last stage."""
