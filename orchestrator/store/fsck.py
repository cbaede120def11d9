"""Verifying a whole store, and removing what cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Problem, StoreError
from orchestrator.failpoints import failpoint
from orchestrator.shown import command
from orchestrator.store.stages import StageStore


@dataclass(frozen=True)
class StoreCheck:
    """What was found. ``sound``: nothing damaged is left."""

    lines: tuple[str, ...]
    sound: bool


def check_store(store: StageStore, *, repair: bool) -> StoreCheck:
    """Verify every stage; with ``repair`` remove damaged ones and whatever no manifest names.

    A stage that is being trained is left alone.
    """
    lines, damaged, leftovers, foreign, good = [], 0, 0, 0, 0
    for key in store.stage_keys():
        claim = store.claim(key) if repair else None
        if repair and not claim:
            lines.append(f"{key}: in use, left alone")
            continue
        problems = _problems(store, key)
        lines += map(str, problems)
        damaged += bool(problems)
        good += not problems and store.read(key) is not None
        paths = [] if problems else store.leftovers(key)
        leftovers += len(paths)
        foreign += 0 if problems else len(store.foreign(key))
        lines += [f"{path}: named by no manifest" for path in paths]
        if claim:
            _repair(store, key, paths, whole=bool(problems))
            claim.release()
    done = "removed" if repair else "found"
    lines.append(f"{good} stages verified, {damaged} damaged stages {done}, {leftovers} leftovers {done}")
    if (damaged or leftovers) and not repair:
        lines.append(f"next: {command('fsck', '--repair', '--store', store.root)}")
    elif damaged:
        lines.append("next: run the job again; it trains what was removed")
    return StoreCheck(tuple(lines), sound=repair or not (damaged or foreign))


def _repair(store: StageStore, key: str, leftovers: list[Path], *, whole: bool) -> None:
    for path in leftovers:
        store.discard(path)
        failpoint("repair.removed")
    if whole or store.empty(key):
        store.forget(key)


def _problems(store: StageStore, key: str) -> list[Problem]:
    try:
        manifest = store.read(key)
    except StoreError as error:
        return list(error.problems)
    return store.damage(manifest) if manifest else []
