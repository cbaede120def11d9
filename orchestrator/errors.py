"""Every error a user can meet, as one picklable tree.

    StepwiseError            exit 1: the work failed
    ├── InputError           exit 2: a job file, an argument or a data file is wrong
    ├── StoreError           exit 2: the store cannot be trusted as it is
    └── TrialError           exit 1: a trial could not finish

An error holds one or more problems. A problem says what was found, where, and what to do next. Its code is explained
in ``ERRORS.md``.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.shown import visible_lines


def without_password(text: str) -> str:
    """Return a text that may be shown: ``***`` stands for the password of every URI in it."""
    return re.sub(r"(://[^/@\s]*:)[^\s]*@", r"\1***@", text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. As text it shows no password."""

    code: str
    """A code that keeps its meaning."""
    where: str
    """The file, line, key or address."""
    found: str
    fix: str = ""
    """The thing to do, or the command to run."""

    def __str__(self) -> str:
        fix = f"; {self.fix}" if self.fix else ""
        return visible_lines(without_password(f"error[{self.code}] {self.where}: {self.found}{fix}"))


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says, or its type if it says nothing."""
    return (str(error).strip() or repr(error)).splitlines()[0]


FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What is named may not be read or written."""
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended."""


class StepwiseError(Exception):
    """The base of the tree. The command line ends with ``exit_code``."""

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: Sequence[Problem] = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class InputError(StepwiseError):
    """Something that the user gave cannot be used. Nothing was queued or written."""

    exit_code = 2


class StoreError(StepwiseError):
    """A file in the store is missing, damaged or foreign."""

    exit_code = 2


class TrialError(StepwiseError):
    """A trial stopped before its last stage."""
