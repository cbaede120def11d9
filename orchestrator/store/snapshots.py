"""The snapshot of a stage: where its training was a little while ago, so that a killed one goes on from there.

``<root>/stages/<key>/snapshot/state.json`` names one file of tensors by size and SHA-256. Only the holder
of the stage's claim reads and writes it, and the commit of the stage removes it. It is used whole or not at all: one
that is damaged, of other work or of other circumstances is thrown away, and the stage starts at its first step.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.failpoints import failpoint
from orchestrator.files import remove, replacing, sha256, sync, write_durably
from orchestrator.identity import digest
from orchestrator.method.stage import Record
from orchestrator.plan import PlannedStage
from orchestrator.store.folders import read_record
from orchestrator.store.manifest import StoredFile
from orchestrator.store.stages import SNAPSHOT, StageStore

STATE = "state.json"


class Snapshot(Record):
    """A moment of a stage that is being trained."""

    identity: dict[str, Any]
    circumstances: dict[str, str]
    """The versions and settings that must be equal for equal numbers."""
    state: dict[str, Any]
    """The part of the moment that is not in the tensors."""
    tensors: StoredFile
    seal: str = ""
    """The digest of all other fields."""

    def sealed(self) -> Snapshot:
        """Return the same snapshot with its seal."""
        return self.model_copy(update={"seal": digest(self.model_dump(mode="json", exclude={"seal"}))})


class Snapshots:
    """The latest snapshot of one stage, as its claim's holder keeps it."""

    def __init__(self, store: StageStore, stage: PlannedStage, circumstances: dict[str, str]) -> None:
        self.folder = store.place(stage.key) / SNAPSHOT
        self._root = store.root
        self._identity, self._circumstances = stage.identity, circumstances

    def save(self, state: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Replace the snapshot in one rename. ``write`` writes the tensors. Raises ``OSError``."""
        self.folder.mkdir(exist_ok=True)
        tensors = self.folder / f"{uuid.uuid4().hex[:12]}.safetensors"
        write(tensors)
        sync(tensors)
        sync(self.folder)
        failpoint("snapshot.tensors")
        named = StoredFile.of(tensors, self.folder)
        snapshot = Snapshot(identity=self._identity, circumstances=self._circumstances, state=state, tensors=named)
        with replacing(self.folder / STATE) as written:
            write_durably(written, snapshot.sealed().model_dump_json().encode())
            failpoint("snapshot.state")
        sync(self.folder)
        failpoint("snapshot.saved")
        for path in self.folder.iterdir():
            if path.name not in (STATE, tensors.name):
                remove(path)

    def latest(self) -> tuple[dict[str, Any], Path] | None:
        """Return the state and the file of tensors, or None if no snapshot is there that training can go on from."""
        try:
            snapshot = Snapshot.model_validate_json(read_record(self._root, self.folder / STATE))
            path = self.folder / Path(snapshot.tensors.path).name
            whole = snapshot == snapshot.sealed() and sha256(path) == snapshot.tensors.sha256
        except (OSError, ValidationError):
            return None
        same = (snapshot.identity, snapshot.circumstances) == (self._identity, self._circumstances)
        return (snapshot.state, path) if whole and same else None

    def forget(self) -> None:
        """Remove the snapshot of a committed stage, or one that cannot be used. The next run tidies what stays."""
        with suppress(OSError):
            remove(self.folder)
            failpoint("snapshot.forgotten")
