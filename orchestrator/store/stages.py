"""Committed stages on disk.

``<root>/stages/<key>/<attempt>/...`` holds the files of every attempt; ``<root>/stages/<key>/
manifest.json`` names the one that counts. It is written last, complete and never replaced: a stage
exists when its manifest does, and of two writers the first wins.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from orchestrator.errors import Problem, StoreError
from orchestrator.identity import field_diff
from orchestrator.method.stage import PASSED, Record, StageMetrics, Verdict
from orchestrator.plan import PlannedStage
from orchestrator.store.claims import Claim, claim, held

FORMAT = 1
CLAIM = "claim"
KEY = re.compile("[0-9a-f]{32}")
VERSIONED = ("stepwise", "torch", "transformers", "ray")


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
        folder = self.stages / key
        folder.mkdir(parents=True, exist_ok=True)
        return claim(folder / CLAIM)

    def claimed(self, key: str) -> bool:
        """Whether a live process is at a stage."""
        return held(self.stages / key / CLAIM)

    def begin(self, key: str) -> Path:
        """A new, empty folder for one attempt of a stage."""
        attempt = self.stages / key / uuid.uuid4().hex[:12]
        attempt.mkdir(parents=True)
        _sync_folder(self.stages)
        return attempt

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
            versions={name: version(name) for name in VERSIONED},
            committed_at=time.time(),
        )
        partial = attempt.with_suffix(".manifest")
        _write_durably(partial, manifest.model_dump_json(indent=1).encode())
        try:
            os.link(partial, self._manifest(stage.key))
        except FileExistsError:
            shutil.rmtree(attempt)
        partial.unlink()
        _sync_folder(self.stages / stage.key)
        return self.manifest(stage) or manifest

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
                self._known[key] = file, _parsed(path, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(Problem("CKP009", str(path), f"cannot be read: {error.strerror}", _REPAIR)) from None
        return self._known[key][1]

    def folder(self, manifest: Manifest) -> Path:
        """Where the files of a committed stage are."""
        return self.stages / manifest.key / manifest.attempt

    def verify(self, manifest: Manifest) -> None:
        """Compare every file with the manifest. Raises ``StoreError`` naming what differs."""
        try:
            problems = list(self._damage(manifest))
        except (OSError, ValueError) as error:
            found = f"names a file that cannot be read: {error}"
            problems = [Problem("CKP010", str(self._manifest(manifest.key)), found, _REPAIR)]
        if problems:
            raise StoreError(*problems)

    def stage_keys(self) -> list[str]:
        """Every stage that has a folder, committed or not. A folder of another name is not ours to look at."""
        folders = self.stages.iterdir() if self.stages.is_dir() else ()
        return sorted(p.name for p in folders if p.is_dir() and KEY.fullmatch(p.name))

    def leftovers(self, key: str) -> list[Path]:
        """What lies in a stage's folder and is named by no manifest."""
        manifest = self.read(key)
        kept = {"manifest.json", manifest.attempt, CLAIM} if manifest else {CLAIM}
        return sorted(p for p in (self.stages / key).iterdir() if p.name not in kept)

    def forget(self, key: str) -> None:
        """Remove a stage; the next run trains it again."""
        shutil.rmtree(self.stages / key)

    def _manifest(self, key: str) -> Path:
        return self.stages / key / "manifest.json"

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
            elif _sha256(path) != file.sha256:
                yield Problem("CKP004", str(path), "its SHA-256 differs from the committed one", _REPAIR)


_REPAIR = "`stepwise fsck --repair` removes the stage, the next run trains it again"


def _parsed(path: Path, key: str) -> Manifest:
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        manifest = Manifest.model_validate(document)
    except (ValueError, ValidationError, RecursionError) as error:
        found = f"not a manifest: {str(error).splitlines()[0]}"
        raise StoreError(Problem("CKP009", str(path), found, _REPAIR)) from None
    if manifest.key != key or manifest.format != FORMAT:
        found = f"names stage {manifest.key}, format {manifest.format}"
        raise StoreError(Problem("CKP009", str(path), found, _REPAIR))
    return manifest


def _described(attempt: Path) -> Iterator[StoredFile]:
    """The attempt's files, each forced to disk."""
    for path in sorted(p for p in attempt.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        yield StoredFile(path=path.relative_to(attempt).as_posix(), size=path.stat().st_size, sha256=_sha256(path))
    _sync_folder(attempt)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
