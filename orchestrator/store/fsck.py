"""Verifies a whole store, and removes what cannot be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Problem, StoreError
from orchestrator.failpoints import failpoint
from orchestrator.shown import command
from orchestrator.store.leftovers import discard, unnamed
from orchestrator.store.manifest import damage, foreign
from orchestrator.store.stages import CLAIM, StageStore


@dataclass(frozen=True)
class StoreCheck:
    """The result of a check."""

    lines: tuple[str, ...]
    """The findings, one a line, for people."""
    sound: bool
    """Whether no damage is left."""


@dataclass(frozen=True)
class _StageCheck:
    """The findings of one stage."""

    committed: bool = False
    problems: tuple[Problem, ...] = ()
    unnamed: tuple[Path, ...] = ()
    """The attempts that were killed, which do no harm."""
    foreign: tuple[Path, ...] = ()
    """The files among the committed ones, which the stage refuses to start from."""


def check_store(store: StageStore, *, repair: bool) -> StoreCheck:
    """Verify every stage. With ``repair``, remove damaged stages and whatever no manifest names.

    A repair leaves a stage alone that a process is training.
    """
    lines: list[str] = []
    stages: list[_StageCheck] = []
    for key in store.stage_keys():
        claim = store.claim(key) if repair else None
        if repair and not claim:
            lines.append(f"{key}: in use, left alone")
            continue
        stage = _checked(store, key)
        stages.append(stage)
        lines += map(str, stage.problems)
        lines += [f"{path}: named by no manifest" for path in (*stage.unnamed, *stage.foreign)]
        if claim:
            for path in (*stage.unnamed, *stage.foreign):
                discard(store, path)
                failpoint("repair.removed")
            if stage.problems or {path.name for path in store.place(key).iterdir()} <= {CLAIM}:
                store.forget(key)
            claim.release()
    good = sum(stage.committed and not stage.problems for stage in stages)
    damaged = sum(bool(stage.problems) for stage in stages)
    leftovers = sum(len(stage.unnamed) + len(stage.foreign) for stage in stages)
    done = "removed" if repair else "found"
    lines.append(f"{good} stages verified, {damaged} damaged stages {done}, {leftovers} leftovers {done}")
    if (damaged or leftovers) and not repair:
        lines.append(f"next: {command('fsck', '--repair', '--store', store.root)}")
    elif damaged:
        lines.append("next: run the job again; it trains what was removed")
    return StoreCheck(tuple(lines), sound=repair or not (damaged or any(stage.foreign for stage in stages)))


def _checked(store: StageStore, key: str) -> _StageCheck:
    """Look at one stage. The leftovers of a damaged one go with it, so they are not listed."""
    try:
        manifest = store.read(key)
    except StoreError as error:
        return _StageCheck(problems=tuple(error.problems))
    if manifest is None:
        return _StageCheck(unnamed=tuple(unnamed(store, key)))
    folder = store.folder(manifest)
    if problems := damage(folder, manifest):
        return _StageCheck(True, tuple(problems))
    return _StageCheck(True, (), tuple(unnamed(store, key)), tuple(foreign(folder, manifest)))
