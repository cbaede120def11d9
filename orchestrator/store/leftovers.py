"""Finds what killed processes left among the stages of a store, and removes it without harm to a living writer."""

from __future__ import annotations

from pathlib import Path

from orchestrator.failpoints import failpoint
from orchestrator.files import remove
from orchestrator.store.manifest import MANIFEST, foreign
from orchestrator.store.stages import CLAIM, SNAPSHOT, StageStore


def leftovers(store: StageStore, key: str) -> list[Path]:
    """Return what lies in a stage's folder, or in that of its committed attempt, and is named by no manifest."""
    manifest = store.read(key)
    return unnamed(store, key) + (foreign(store.folder(manifest), manifest) if manifest else [])


def unnamed(store: StageStore, key: str) -> list[Path]:
    """Return the attempts, and whatever else lies beside them, that a stage's manifest does not name.

    A stage without a manifest keeps its snapshot.
    """
    manifest = store.read(key)
    kept = {MANIFEST, manifest.attempt, CLAIM} if manifest else {SNAPSHOT, CLAIM}
    return sorted(path for path in store.place(key).iterdir() if path.name not in kept)


def tidy(store: StageStore, key: str) -> None:
    """Remove what killed attempts left of a stage. Only the holder of its claim may. Raises ``StoreError``."""
    for path in unnamed(store, key):
        with store.writing(path):
            discard(store, path)
            failpoint("tidy.removed")


def discard(store: StageStore, path: Path) -> None:
    """Remove what no manifest names, unless one names it by now: its writer had lost its claim and committed."""
    aside = path.with_name(f"{path.name}.unnamed")
    path.rename(aside)  # first out of the way: a commit of it fails from here on
    if store.names(path):
        aside.rename(path)
    else:
        remove(aside)
