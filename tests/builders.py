"""Stages that nobody trained: what a test commits to a store, to look at what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.method.stage import StageMetrics, Verdict
from orchestrator.plan import PlannedStage
from orchestrator.store import Manifest, StageStore

WEIGHTS = {"model.safetensors": b"weights"}
"""The files of a stage whose weights nobody reads."""


def metrics_of(stage: PlannedStage, exact_match: float = 0.5, **measured: Any) -> StageMetrics:
    """Return what an attempt of a stage may have measured. ``measured`` names the fields that matter to the test."""
    fields: dict[str, Any] = {
        "removed_tokens": stage.spec.removed_to,
        "total_tokens": stage.spec.total_tokens,
        "exact_match": exact_match,
        "examples": 100,
        "validation_loss": 0.1,
        "generated_tokens": 9.0,
        "examples_per_second": 10.0,
        "examples_per_second_batched": 100.0,
        "train_seconds": 1.0,
        "evaluate_seconds": 1.0,
    }
    return StageMetrics(**fields | measured)


def commit_stage(
    store: StageStore,
    stage: PlannedStage,
    metrics: StageMetrics | None = None,
    verdict: Verdict = "good",
    reason: str = "",
    files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Commit an attempt of a stage, unless one stands, and return the manifest of the one that stands."""
    if standing := store.manifest(stage):
        return standing
    attempt = store.begin(stage.key)
    for name, content in (files or {}).items():
        (attempt / name).parent.mkdir(parents=True, exist_ok=True)
        (attempt / name).write_bytes(content)
    return store.commit(stage, attempt, verdict, metrics or metrics_of(stage), reason)
