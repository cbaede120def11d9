"""The states that a crash may leave on a disk, made from a record of what was written (after ALICE, OSDI 2014).

A power cut keeps what was forced to disk and any part of the rest: an entry of a folder that was not
synced may be missing, data that were not synced may be missing or torn, in any order.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

ALL_SUBSETS_UP_TO = 6
SAMPLED = 40
PREFIXES = 16


@dataclass(frozen=True)
class Data:
    """Bytes of a file that are on their way to the disk."""

    inode: int
    content: bytes


@dataclass(frozen=True)
class Entry:
    """A name in a folder that is on its way to the disk; ``inode`` None: its removal. ``old``: moved from there."""

    path: str
    inode: int | None
    folder: bool = False
    old: str | None = None


@dataclass(frozen=True)
class Sync:
    """A file's data, or a folder's entries, are on the disk from here on."""

    inode: int
    path: str


Step = Data | Entry | Sync


class Recorder:
    """Watches a folder: before and after every call that names or syncs, it writes down what has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []
        self._entries: dict[str, tuple[int, bool]] = {}
        self._data: dict[int, bytes] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("mkdir", "link", "replace", "rename", "unlink", "rmdir"):
                patch.setattr(os, name, self._recorded(getattr(os, name)))
            patch.setattr(os, "fsync", self._synced(os.fsync))
            yield
        self.look()

    def _recorded(self, call: Callable) -> Callable:
        def recorded(*arguments: object, **options: object) -> object:
            self.look()
            try:
                return call(*arguments, **options)
            finally:
                self.look()

        return recorded

    def _synced(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def synced(handle: int) -> None:
            self.look()
            call(handle)
            path = os.readlink(f"/proc/self/fd/{handle}")
            self.steps.append(Sync(os.fstat(handle).st_ino, os.path.relpath(path, self.root)))

        return synced

    def look(self) -> None:
        """Write down what changed since the last look."""
        now: dict[str, tuple[int, bool]] = {}
        for path in sorted(self.root.rglob("*")):
            state = path.lstat()
            now[str(path.relative_to(self.root))] = state.st_ino, path.is_dir()
            if path.is_file() and self._data.get(state.st_ino) != (content := path.read_bytes()):
                self._data[state.st_ino] = content
                self.steps.append(Data(state.st_ino, content))
        for name in self._entries.keys() - now.keys():
            moved_to = (other for other, place in now.items() if place == self._entries[name])
            if not any(self._entries.get(other) != now[other] for other in moved_to):
                self.steps.append(Entry(name, None))
        for name, (inode, folder) in now.items():
            if self._entries.get(name) != (inode, folder):
                moved = next((old for old, (i, _) in self._entries.items() if i == inode and old not in now), None)
                self.steps.append(Entry(name, inode, folder, moved))
        self._entries = now


def crash_states(steps: list[Step], dice: random.Random) -> Iterator[tuple[int, dict[str, bytes | None]]]:
    """(steps taken, tree) for every step and, after it, choices of what was not yet synced.

    A tree maps paths to bytes, or None for a folder.
    """
    seen: set[tuple] = set()
    for taken in range(len(steps) + 1):
        issued = steps[:taken]
        pending = [i for i, step in enumerate(issued) if not isinstance(step, Sync) and not _durable(i, issued)]
        for kept in _choices(pending, dice):
            for torn in (None, *_tears(kept, issued)):
                tree = _tree(issued, set(pending) - set(kept), torn)
                mark = taken, *sorted(tree.items(), key=lambda item: item[0])
                if mark not in seen:
                    seen.add(mark)
                    yield taken, tree


def _tears(kept: tuple[int, ...], issued: list[Step]) -> Iterator[tuple[int, int]]:
    """(step, bytes that arrived) for each piece of data that may be torn."""
    for index in kept:
        step = issued[index]
        if isinstance(step, Data):
            size = len(step.content)
            yield from ((index, length) for length in range(0, size, max(1, size // PREFIXES)))


def _durable(index: int, issued: list[Step]) -> bool:
    step = issued[index]
    for later in issued[index + 1 :]:
        if isinstance(step, Data):
            if isinstance(later, Sync) and later.inode == step.inode:
                return True
        elif isinstance(later, Sync) and os.path.normpath(later.path) == (os.path.dirname(step.path) or "."):
            return True
    return False


def _choices(pending: list[int], dice: random.Random) -> Iterator[tuple[int, ...]]:
    if len(pending) <= ALL_SUBSETS_UP_TO:
        for size in range(len(pending) + 1):
            yield from combinations(pending, size)
        return
    yield ()
    yield tuple(pending)
    for one in pending:
        yield (one,)
        yield tuple(other for other in pending if other != one)
    for _ in range(SAMPLED):
        yield tuple(one for one in pending if dice.random() < 0.5)


def _tree(issued: list[Step], dropped: set[int], torn: tuple[int, int] | None) -> dict[str, bytes | None]:
    entries: dict[str, tuple[int, bool]] = {}
    data: dict[int, bytes] = {}
    for index, step in enumerate(issued):
        if index in dropped:
            continue
        if isinstance(step, Data):
            data[step.inode] = step.content[: torn[1]] if torn and torn[0] == index else step.content
        elif isinstance(step, Entry):
            entries.pop(step.old or "", None)
            if step.inode is None:
                entries.pop(step.path, None)
            else:
                entries[step.path] = step.inode, step.folder
    reachable = {
        path: place
        for path, place in entries.items()
        if all(str(above) in entries for above in Path(path).parents if str(above) != ".")
    }
    return {path: None if folder else data.get(inode, b"") for path, (inode, folder) in reachable.items()}


def build(tree: dict[str, bytes | None], root: Path) -> None:
    """Lay a state out in an empty folder."""
    root.mkdir()
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(content)
