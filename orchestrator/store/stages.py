"""Committed stages on disk.

``<root>/stages/<key>/<attempt>/...`` holds the files of every attempt; ``<root>/stages/<key>/
manifest.json`` names the one that counts. It is written in the attempt's folder and linked to its place
last, complete and never replaced: a stage exists when its manifest does, and of two writers the first
wins. Everything it names, and every folder on the way, is forced to disk before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError

from orchestrator import method
from orchestrator.errors import Problem, StepwiseError, StoreError, first_line
from orchestrator.failpoints import failpoint
from orchestrator.files import sha256, sync_folder, write_durably
from orchestrator.identity import digest, field_diff
from orchestrator.method.stage import PASSED, Record, StageMetrics, Verdict
from orchestrator.plan import PlannedStage
from orchestrator.store.claims import Claim, claim, held
from orchestrator.store.folders import inside, read_record

FORMAT = 1
MANIFEST = "manifest.json"
CLAIM = "claim"
SNAPSHOT = "snapshot"
"""Of a stage that is not committed: where its training was (``store/snapshots.py``)."""
KEY = re.compile("[0-9a-f]{32}")
NUMERIC = ("torch", "transformers", "tokenizers", "numpy", "peft")
"""Libraries whose version may change the numbers of a stage; the last is not needed by all."""


class StoredFile(Record):
    """A file of the committed attempt."""

    path: str
    size: int
    sha256: str


class Manifest(Record):
    """The record of a committed stage."""

    format: int = FORMAT
    key: str
    parent: str | tuple[str, ...] | None
    identity: dict[str, Any]
    attempt: str = Field(pattern=r"^[0-9a-f]{12}$")
    verdict: Verdict
    metrics: StageMetrics
    files: tuple[StoredFile, ...]
    reason: str = ""
    """Why the verdict is not ``good``."""
    versions: dict[str, str]
    committed_at: float
    """Seconds since the epoch; the timestamp of the stage's points in MLflow."""

    @property
    def passed(self) -> bool:
        """Whether the chain goes on from here."""
        return self.verdict in PASSED


class StageStore:
    """Stages under one local folder. Safe for any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self._known: dict[str, tuple[tuple[int, ...], Manifest]] = {}

    def claim(self, key: str) -> Claim | None:
        """Take a stage on, or None while another live process does."""
        folder = self.place(key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return claim(folder / CLAIM)
        except OSError as error:
            raise StoreError(unwritten(folder, error)) from error

    def claimed(self, key: str) -> bool:
        """Whether a live process is at a stage."""
        return held(self.stages / key / CLAIM)

    def begin(self, key: str) -> Path:
        """A new, empty folder for one attempt of a stage. Raises ``StoreError``."""
        attempt = self.place(key) / uuid.uuid4().hex[:12]
        with self.writing(attempt):
            attempt.mkdir(parents=True)
            for folder in (self.stages, self.root, self.root.parent):
                sync_folder(folder)
            failpoint("attempt.begun")
        return attempt

    @contextmanager
    def writing(self, attempt: Path) -> Iterator[None]:
        """Around all writes of an attempt: one that fails is said with the file and what is free.

        Nothing is tried again, and nothing of the attempt is kept: after a failed fsync nobody knows what
        the disk holds. Raises ``StoreError``.
        """
        try:
            yield
        except (OSError, SafetensorError) as error:
            if not self._stands(attempt):
                shutil.rmtree(attempt, ignore_errors=True)
            raise StoreError(unwritten(attempt, error)) from error

    def commit(
        self, stage: PlannedStage, attempt: Path, verdict: Verdict, metrics: StageMetrics, reason: str = ""
    ) -> Manifest:
        """Make an attempt the stage. Returns the manifest that stands, ours or an earlier writer's."""
        manifest = Manifest(
            key=stage.key,
            parent=stage.identity["parent"],
            identity=stage.identity,
            attempt=attempt.name,
            verdict=verdict,
            metrics=metrics,
            files=tuple(_described(attempt)),
            reason=reason,
            versions={**{name: version(name) for name in ("stepwise", "ray")}, **number_versions()},
            committed_at=time.time(),
        )
        failpoint("commit.files")
        self._publish(attempt, manifest)
        return self.manifest(stage) or manifest

    def adopt(self, manifest: Manifest, fetch: Callable[[StoredFile, Path], None]) -> None:
        """Commit a copy of what another store has committed. ``fetch`` writes one of its files to a path.

        Raises ``StoreError``, and keeps nothing, if what came is not what the manifest names.
        """
        attempt = self.begin(manifest.key)
        with self.writing(attempt):
            try:
                self._copy(manifest, attempt, fetch)
            except StepwiseError:
                shutil.rmtree(attempt)
                raise
            self._publish(attempt, manifest.model_copy(update={"attempt": attempt.name}))

    def _copy(self, manifest: Manifest, attempt: Path, fetch: Callable[[StoredFile, Path], None]) -> None:
        for file in manifest.files:
            path = attempt / file.path
            if not path.resolve().is_relative_to(attempt.resolve()):
                raise StoreError(Problem("CKP010", file.path, "leaves the stage's folder", _NOT_COPIED))
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(file, path)
        if tuple(_described(attempt)) != manifest.files:
            raise StoreError(Problem("CKP004", manifest.key, "what came is not what was committed", _NOT_COPIED))

    def _publish(self, attempt: Path, manifest: Manifest) -> None:
        """Write the manifest beside the attempt's files and link it to its place, unless one stands there."""
        write_durably(attempt / MANIFEST, manifest.model_dump_json(indent=1).encode())
        sync_folder(attempt)
        sync_folder(attempt.parent)
        failpoint("commit.written")
        try:
            os.link(attempt / MANIFEST, self._manifest(manifest.key))
        except FileExistsError:
            failpoint("commit.lost")
            shutil.rmtree(attempt)
        failpoint("commit.linked")
        sync_folder(attempt.parent)
        failpoint("commit.done")

    def manifest(self, stage: PlannedStage) -> Manifest | None:
        """The committed record of a stage, or None. Raises ``StoreError`` if it is not the stage's."""
        manifest = self.read(stage.key)
        if manifest and manifest.identity != stage.identity:
            difference = "; ".join(field_diff(manifest.identity, stage.identity))
            raise StoreError(
                Problem("CKP012", str(self._manifest(stage.key)), f"belongs to other work: {difference}", _REPAIR)
            )
        return manifest

    def read(self, key: str) -> Manifest | None:
        """The record behind a key, or None if the stage is not committed. An unchanged file is parsed once."""
        path = self._manifest(key)
        try:
            state = path.stat()
            file = state.st_ino, state.st_mtime_ns, state.st_size
            if key not in self._known or self._known[key][0] != file:
                self._known[key] = file, parsed(read_record(self.root, path), str(path), key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(Problem("CKP009", str(path), f"cannot be read: {error.strerror}", _REPAIR)) from None
        return self._known[key][1]

    def expect(self, key: str) -> None:
        """Raise ``StoreError`` if a stage that was committed is there no more."""
        if self.read(key) is None:
            found = "was committed and is gone: somebody removed it while the trial ran"
            raise StoreError(Problem("CKP011", str(self.stages / key), found, "run again; it trains what is missing"))

    def folder(self, manifest: Manifest) -> Path:
        """Where the files of a committed stage are."""
        return self.stages / manifest.key / manifest.attempt

    def verify(self, manifest: Manifest) -> None:
        """Compare every file with the manifest. Raises ``StoreError`` naming what differs, or does not belong."""
        problems = self.damage(manifest)
        if not problems:
            problems = [
                Problem("CKP014", str(path), "is not part of the stage", _REMOVE) for path in self._foreign(manifest)
            ]
        if problems:
            raise StoreError(*problems)

    def damage(self, manifest: Manifest) -> list[Problem]:
        """Every committed file that is not as it was committed."""
        try:
            return list(self._damage(manifest))
        except (OSError, ValueError) as error:
            found = f"names a file that cannot be read: {error}"
            return [Problem("CKP010", str(self._manifest(manifest.key)), found, _REPAIR)]

    def place(self, key: str) -> Path:
        """Return the folder of a stage. Raises ``StoreError`` if it is a link that leads out of the store."""
        return inside(self.root, self.stages / key)

    def stage_keys(self) -> list[str]:
        """Every stage that has a folder, committed or not. A folder of another name is not ours to look at."""
        folders = self.stages.iterdir() if self.stages.is_dir() else ()
        return sorted(p.name for p in folders if KEY.fullmatch(p.name) and p.is_dir() and not p.is_symlink())

    def foreign(self, key: str) -> list[Path]:
        """What lies among a committed stage's files and is none of them."""
        manifest = self.read(key)
        return self._foreign(manifest) if manifest else []

    def leftovers(self, key: str) -> list[Path]:
        """What lies in a stage's folder, or in that of its committed attempt, and is named by no manifest."""
        return self._unnamed(key) + self.foreign(key)

    def tidy(self, key: str) -> None:
        """Remove what killed attempts left; for whoever holds the stage's claim. Raises ``StoreError``."""
        for path in self._unnamed(key):
            with self.writing(path):
                self.discard(path)
                failpoint("tidy.removed")

    def discard(self, path: Path) -> None:
        """Remove what no manifest names. If one does by now, as its writer had lost its claim, it is put back."""
        aside = path.with_name(f"{path.name}.unnamed")
        path.rename(aside)
        if self._stands(path):
            aside.rename(path)
        else:
            remove(aside)

    def _unnamed(self, key: str) -> list[Path]:
        manifest = self.read(key)
        kept = {MANIFEST, manifest.attempt, CLAIM} if manifest else {SNAPSHOT, CLAIM}
        return sorted(path for path in self.place(key).iterdir() if path.name not in kept)

    def _foreign(self, manifest: Manifest) -> list[Path]:
        folder = self.folder(manifest)
        named = {folder / MANIFEST, *(folder / file.path for file in manifest.files)}
        inside = {parent for path in named for parent in path.parents}
        return sorted(path for path in folder.rglob("*") if path not in named and path not in inside)

    def empty(self, key: str) -> bool:
        """Whether nothing was ever kept of a stage."""
        return {path.name for path in self.place(key).iterdir()} <= {CLAIM}

    def forget(self, key: str) -> None:
        """Remove a stage, its manifest first; the next run trains it again."""
        folder = self.place(key)
        remove(folder / MANIFEST)
        failpoint("forget.manifest")
        shutil.rmtree(folder)
        failpoint("forget.done")

    def _stands(self, attempt: Path) -> bool:
        try:
            manifest = self.read(attempt.parent.name)
        except StoreError:
            return True
        return manifest is not None and manifest.attempt == attempt.name

    def _manifest(self, key: str) -> Path:
        return self.stages / key / MANIFEST

    def _damage(self, manifest: Manifest) -> Iterator[Problem]:
        folder = self.folder(manifest).resolve()
        if not folder.is_relative_to(self.stages.resolve()):
            yield Problem("CKP010", str(folder), "lies outside the store", _REPAIR)
            return
        for file in manifest.files:
            path = folder / file.path
            if not path.resolve().is_relative_to(folder) or path.is_symlink():
                yield Problem("CKP010", str(path), "leaves the stage's folder", _REPAIR)
            elif not path.is_file():
                yield Problem("CKP001", str(path), "missing", _REPAIR)
            elif path.stat().st_size != file.size:
                found = f"{path.stat().st_size:,} bytes, {file.size:,} committed"
                yield Problem("CKP002", str(path), found, _REPAIR)
            elif sha256(path) != file.sha256:
                yield Problem("CKP004", str(path), "its SHA-256 differs from the committed one", _REPAIR)


_REPAIR = "`stepwise fsck --repair` removes the stage, the next run trains it again"
_NOT_COPIED = "remove the stage there; the next run trains it again"
_REMOVE = "`stepwise fsck --repair` removes it"


def parsed(data: bytes, where: str, key: str) -> Manifest:
    """The manifest of a stage. Raises ``StoreError`` if it is none, or another stage's."""
    try:
        document = json.loads(data, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        manifest = Manifest.model_validate(document)
    except (ValueError, ValidationError, RecursionError) as error:
        found = f"not a manifest: {first_line(error)}"
        raise StoreError(Problem("CKP009", where, found, _REPAIR)) from None
    if manifest.key != key or manifest.format != FORMAT:
        found = f"names stage {manifest.key}, format {manifest.format}"
        raise StoreError(Problem("CKP009", where, found, _REPAIR))
    return manifest


def _described(attempt: Path) -> Iterator[StoredFile]:
    """The attempt's files, each forced to disk."""
    for path in sorted(p for p in attempt.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        failpoint("commit.file")
        yield StoredFile(path=path.relative_to(attempt).as_posix(), size=path.stat().st_size, sha256=sha256(path))


@cache
def number_versions() -> dict[str, str]:
    """What the last bits of a stage's numbers depend on: libraries, and the source of ``method/`` with its folders."""
    sources = sorted(Path(method.__file__).parent.rglob("*.py"))
    libraries = {name: version(name) for name in NUMERIC if find_spec(name)}
    return {**libraries, "method": digest([path.read_text("utf-8") for path in sources])[:12]}


def unwritten(path: Path, error: OSError | SafetensorError) -> Problem:
    """What to say of a write that failed in a store."""
    folder = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free
    where, said = (error.filename, error.strerror) if isinstance(error, OSError) else (None, None)
    found = f"cannot be written: {said or error}; {free:,} bytes are free"
    return Problem("STO007", str(where or path), found, "what is committed stays; run again once it can be")


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
