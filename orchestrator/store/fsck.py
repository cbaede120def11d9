"""Verifying a whole store, and removing what cannot be trusted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from orchestrator.errors import Problem, StoreError
from orchestrator.store.stages import StageStore


@dataclass(frozen=True)
class StoreCheck:
    """What was found. ``sound``: nothing damaged is left."""

    lines: tuple[str, ...]
    sound: bool


def check_store(store: StageStore, *, repair: bool) -> StoreCheck:
    """Verify every stage; with ``repair`` remove damaged ones and whatever no manifest names.

    Not to be repaired while a job runs on the store: the attempts in progress have no manifest yet.
    """
    lines, damaged, leftovers, good = [], 0, 0, 0
    for key in store.stage_keys():
        problems = _problems(store, key)
        lines += map(str, problems)
        if problems:
            damaged += 1
            if repair:
                store.forget(key)
            continue
        good += store.read(key) is not None
        for path in store.leftovers(key):
            leftovers += 1
            if repair:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if repair and store.read(key) is None:
            store.forget(key)
    done = "removed" if repair else "found"
    lines.append(f"{good} stages verified, {damaged} damaged stages {done}, {leftovers} leftovers {done}")
    if (damaged or leftovers) and not repair:
        lines.append("next: stepwise fsck --repair (while no job runs on this store)")
    return StoreCheck(tuple(lines), sound=repair or not damaged)


def _problems(store: StageStore, key: str) -> list[Problem]:
    try:
        manifest = store.read(key)
        if manifest:
            store.verify(manifest)
    except StoreError as error:
        return list(error.problems)
    return []
