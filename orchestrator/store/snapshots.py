"""Where the training of a stage was a little while ago, so that a killed one goes on from there.

``<root>/stages/<key>/snapshot/state.json`` names one file of tensors by size and SHA-256. It is for the
holder of the stage's claim, gone once the stage is committed, and used whole or not at all: what is
damaged, of other work or of other circumstances is thrown away, and the stage begins at its beginning.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.failpoints import failpoint
from orchestrator.files import sha256, sync_folder, write_durably
from orchestrator.identity import digest
from orchestrator.method.stage import Record
from orchestrator.plan import PlannedStage
from orchestrator.store.folders import read_record
from orchestrator.store.stages import SNAPSHOT, StageStore, StoredFile, remove

STATE = "state.json"


class Snapshot(Record):
    """A moment of a stage that is being trained. ``state``: what stands beside the tensors."""

    identity: dict[str, Any]
    circumstances: dict[str, str]
    state: dict[str, Any]
    tensors: StoredFile
    seal: str = ""
    """Digest of all the rest."""

    def sealed(self) -> Snapshot:
        return self.model_copy(update={"seal": digest(self.model_dump(mode="json", exclude={"seal"}))})


class Snapshots:
    """The latest snapshot of one stage. ``circumstances``: what must be equal for equal numbers."""

    def __init__(self, store: StageStore, stage: PlannedStage, circumstances: dict[str, str]) -> None:
        self.folder = store.place(stage.key) / SNAPSHOT
        self._root = store.root
        self._identity, self._circumstances = stage.identity, circumstances

    def save(self, state: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Replace the snapshot in one rename. ``write`` writes the tensors. Raises ``OSError``."""
        self.folder.mkdir(exist_ok=True)
        tensors = self.folder / f"{uuid.uuid4().hex[:12]}.safetensors"
        write(tensors)
        with tensors.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(self.folder)
        failpoint("snapshot.tensors")
        named = StoredFile(path=tensors.name, size=tensors.stat().st_size, sha256=sha256(tensors))
        snapshot = Snapshot(identity=self._identity, circumstances=self._circumstances, state=state, tensors=named)
        write_durably(self.folder / "next.json", snapshot.sealed().model_dump_json().encode())
        failpoint("snapshot.state")
        os.replace(self.folder / "next.json", self.folder / STATE)
        sync_folder(self.folder)
        failpoint("snapshot.saved")
        for path in self.folder.iterdir():
            if path.name not in (STATE, tensors.name):
                remove(path)

    def latest(self) -> tuple[dict[str, Any], Path] | None:
        """State and tensors of the snapshot, if there is one that can be gone on from."""
        try:
            snapshot = Snapshot.model_validate_json(read_record(self._root, self.folder / STATE))
            path = self.folder / Path(snapshot.tensors.path).name
            whole = snapshot == snapshot.sealed() and sha256(path) == snapshot.tensors.sha256
        except (OSError, ValidationError):
            return None
        ours = (snapshot.identity, snapshot.circumstances) == (self._identity, self._circumstances)
        return (snapshot.state, path) if whole and ours else None

    def forget(self) -> None:
        """Remove it: the stage is committed, or the snapshot cannot be used. What stays is tidied by the next run."""
        with suppress(OSError):
            remove(self.folder)
            failpoint("snapshot.forgotten")
