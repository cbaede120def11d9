"""Committed stages on disk.

``<root>/stages/<key>/<attempt>/...`` holds the files of every attempt, and ``<root>/stages/<key>/manifest.json`` names
the attempt that counts. The manifest is written in the attempt's folder and linked to its place last. It is complete
and never replaced: a stage exists when its manifest does, and the first of two writers wins. All files that it names,
and every folder on the way to them, are forced to disk before.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError

from orchestrator.errors import Problem, StepwiseError, StoreError
from orchestrator.failpoints import failpoint
from orchestrator.files import remove, sync, write_durably
from orchestrator.identity import field_diff
from orchestrator.method.stage import StageMetrics, Verdict
from orchestrator.plan import PlannedStage
from orchestrator.store.claims import Claim, claim, held
from orchestrator.store.folders import inside, read_record
from orchestrator.store.manifest import (
    MANIFEST,
    REPAIR,
    Manifest,
    StoredFile,
    damage,
    foreign,
    number_versions,
    parsed,
)

CLAIM = "claim"
SNAPSHOT = "snapshot"
"""The folder that keeps the snapshot of a stage that is not committed (``store/snapshots.py``)."""
KEY = re.compile("[0-9a-f]{32}")


class StageStore:
    """Stages under one local folder. Safe for any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self._known: dict[str, tuple[tuple[int, ...], Manifest]] = {}

    def claim(self, key: str) -> Claim | None:
        """Claim a stage. Returns None while another live process holds the claim. Raises ``StoreError``."""
        folder = self.place(key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return claim(folder / CLAIM)
        except OSError as error:
            raise StoreError(unwritten(folder, error)) from error

    def claimed(self, key: str) -> bool:
        """Return whether a live process is training a stage."""
        return held(self.stages / key / CLAIM)

    def begin(self, key: str) -> Path:
        """Make a new, empty folder for one attempt of a stage. Raises ``StoreError``."""
        attempt = self.place(key) / uuid.uuid4().hex[:12]
        with self.writing(attempt):
            attempt.mkdir(parents=True)
            for folder in (self.stages, self.root, self.root.parent):
                sync(folder)
            failpoint("attempt.begun")
        return attempt

    @contextmanager
    def writing(self, attempt: Path) -> Iterator[None]:
        """Enclose all writes of an attempt: a failed one is raised as ``StoreError`` with the file and the free bytes.

        Nothing is tried again, and nothing of the attempt is kept: after a failed fsync nobody knows what the disk
        holds.
        """
        try:
            yield
        except (OSError, SafetensorError) as error:
            if not self.names(attempt):
                shutil.rmtree(attempt, ignore_errors=True)
            raise StoreError(unwritten(attempt, error)) from error

    def commit(
        self, stage: PlannedStage, attempt: Path, verdict: Verdict, metrics: StageMetrics, reason: str = ""
    ) -> Manifest:
        """Make an attempt the stage. Returns the manifest that stands, this one or an earlier writer's."""
        manifest = Manifest(
            key=stage.key,
            parent=stage.identity["parent"],
            identity=stage.identity,
            attempt=attempt.name,
            verdict=verdict,
            metrics=metrics,
            files=tuple(_on_disk(attempt)),
            reason=reason,
            versions={**{name: version(name) for name in ("stepwise", "ray")}, **number_versions()},
            committed_at=time.time(),
        )
        failpoint("commit.files")
        self._publish(attempt, manifest)
        return self.manifest(stage) or manifest

    def adopt(self, manifest: Manifest, fetch: Callable[[StoredFile, Path], None]) -> None:
        """Commit a copy of what another store has committed. ``fetch`` writes one of its files to a path.

        Raises ``StoreError``, and keeps nothing, if the copy is not what the manifest names.
        """
        attempt = self.begin(manifest.key)
        with self.writing(attempt):
            try:
                for file in manifest.files:
                    path = attempt / file.path
                    if not path.resolve().is_relative_to(attempt.resolve()):
                        raise StoreError(Problem("CKP010", file.path, "leaves the stage's folder", _NOT_COPIED))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    fetch(file, path)
                if tuple(_on_disk(attempt)) != manifest.files:
                    found = "the copy is not what was committed"
                    raise StoreError(Problem("MIR004", manifest.key, found, _NOT_COPIED))
            except StepwiseError:
                shutil.rmtree(attempt)
                raise
            self._publish(attempt, manifest.model_copy(update={"attempt": attempt.name}))

    def _publish(self, attempt: Path, manifest: Manifest) -> None:
        """Write the manifest beside the attempt's files and link it to its place, unless one stands there."""
        write_durably(attempt / MANIFEST, manifest.model_dump_json(indent=1).encode())
        sync(attempt)
        sync(attempt.parent)
        failpoint("commit.written")
        try:
            os.link(attempt / MANIFEST, self._manifest_file(manifest.key))  # a rename would replace an earlier one
        except FileExistsError:
            failpoint("commit.lost")
            shutil.rmtree(attempt)
        failpoint("commit.linked")
        sync(attempt.parent)
        failpoint("commit.done")

    def manifest(self, stage: PlannedStage) -> Manifest | None:
        """Return the committed record of a stage, or None. Raises ``StoreError`` if it is of other work."""
        manifest = self.read(stage.key)
        if manifest and manifest.identity != stage.identity:
            found = f"belongs to other work: {'; '.join(field_diff(manifest.identity, stage.identity))}"
            raise StoreError(Problem("CKP012", str(self._manifest_file(stage.key)), found, REPAIR))
        return manifest

    def read(self, key: str) -> Manifest | None:
        """Return the record behind a key, or None if the stage is not committed. An unchanged file is parsed once."""
        path = self._manifest_file(key)
        try:
            state = path.stat()
            file = state.st_ino, state.st_mtime_ns, state.st_size
            if key not in self._known or self._known[key][0] != file:
                self._known[key] = file, parsed(read_record(self.root, path), str(path), key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(Problem("CKP009", str(path), f"cannot be read: {error.strerror}", REPAIR)) from None
        return self._known[key][1]

    def expect(self, key: str) -> None:
        """Raise ``StoreError`` if a stage that was committed is there no more."""
        if self.read(key) is None:
            found = "was committed and is gone: somebody removed it while the trial ran"
            raise StoreError(Problem("CKP011", str(self.stages / key), found, "run again; it trains what is missing"))

    def names(self, attempt: Path) -> bool:
        """Return whether an attempt's folder is the one that a manifest names. A damaged manifest names all."""
        try:
            manifest = self.read(attempt.parent.name)
        except StoreError:
            return True
        return manifest is not None and manifest.attempt == attempt.name

    def folder(self, manifest: Manifest) -> Path:
        """Return the folder with the files of a committed stage."""
        return self.stages / manifest.key / manifest.attempt

    def verify(self, manifest: Manifest) -> None:
        """Compare a stage's folder with its manifest. Raises ``StoreError`` that names what differs or is foreign."""
        folder = self.folder(manifest)
        problems = damage(folder, manifest) or [
            Problem("CKP014", str(path), "is not part of the stage", "`stepwise fsck --repair` removes it")
            for path in foreign(folder, manifest)
        ]
        if problems:
            raise StoreError(*problems)

    def place(self, key: str) -> Path:
        """Return the folder of a stage. Raises ``StoreError`` if it is a link that leads out of the store."""
        return inside(self.root, self.stages / key)

    def stage_keys(self) -> list[str]:
        """Return the key of every stage that has a folder, committed or not. Folders of other names are left alone."""
        folders = self.stages.iterdir() if self.stages.is_dir() else ()
        return sorted(p.name for p in folders if KEY.fullmatch(p.name) and p.is_dir() and not p.is_symlink())

    def forget(self, key: str) -> None:
        """Remove a stage, its manifest first. The next run trains it again."""
        folder = self.place(key)
        remove(folder / MANIFEST)
        failpoint("forget.manifest")
        shutil.rmtree(folder)
        failpoint("forget.done")

    def _manifest_file(self, key: str) -> Path:
        return self.stages / key / MANIFEST


_NOT_COPIED = "remove the stage there; the next run trains it again"


def _on_disk(attempt: Path) -> Iterator[StoredFile]:
    """Force an attempt's files to disk and describe each."""
    for path in sorted(p for p in attempt.rglob("*") if p.is_file()):
        sync(path)
        failpoint("commit.file")
        yield StoredFile.of(path, attempt)


def unwritten(path: Path, error: OSError | SafetensorError) -> Problem:
    """Return the problem of a write that failed in a store: the file, the system's words, the free bytes."""
    folder = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free
    where, said = (error.filename, error.strerror) if isinstance(error, OSError) else (None, None)
    found = f"cannot be written: {said or error}; {free:,} bytes are free"
    return Problem("STO007", str(where or path), found, "what is committed stays; run again once it can be")
