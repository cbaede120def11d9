"""Prints where every job of a store stands."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from orchestrator.errors import InputError, Problem, StoreError
from orchestrator.report.terminal.states import jobs_table
from orchestrator.results.state import job_state
from orchestrator.store import StageStore, saved_names


def show_jobs(store: StageStore, console: Console, *, as_json: bool) -> int:
    """Print where every job of a store stands, and why not of one that cannot be read. Returns the exit code.

    Raises ``InputError`` if none ran on the store.
    """
    names = saved_names(store)
    if not names:
        found = "no job ran on this store" if store.root.is_dir() else "no such folder"
        fix = "run a job first, or name a store with --store"
        raise InputError(Problem("STO011", str(store.root), found, fix))
    states, unread = [], []
    for name in names:
        try:
            states.append(job_state(name, store))
        except (InputError, StoreError) as error:
            unread.append(f"{name}: {error}")
    if as_json:
        print(json.dumps([state.model_dump(mode="json") for state in states], indent=1))
    else:
        console.print(jobs_table(states))
    for line in unread:
        print(line, file=sys.stderr)
    return int(bool(unread))
