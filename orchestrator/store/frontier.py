"""The frontier: what the committed stages of a plan say about accuracy against removed tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

from orchestrator.config import Method, Scalar
from orchestrator.method.stage import Record, Verdict
from orchestrator.plan import Plan
from orchestrator.store.stages import Manifest, StageStore


class FrontierPoint(Record):
    """One committed stage of one trial."""

    trial: str
    method: Method
    seed: int
    stage: int
    stage_key: str
    step: int
    """Optimizer steps of the chain up to the end of this stage."""
    removed_tokens: int
    total_tokens: int
    exact_match: float
    generated_tokens: float
    """Mean tokens written per answer, with what is left of the CoT and the separators."""
    examples_per_second: float
    """Greedy decoding, one example at a time."""
    examples_per_second_batched: float
    speedup: float | None
    """examples_per_second over that of No CoT's last stage; None until one is committed."""
    verdict: Verdict
    pareto: bool
    """No other point is at least as accurate with at least as many tokens removed, and better in one."""
    seconds: float
    """Wall time of training and evaluating this stage."""
    committed_at: float
    settings: dict[str, Scalar]
    """What the search set, by job field; infinity as text, as JSON has no number for it."""


def frontier(plan: Plan, store: StageStore) -> tuple[FrontierPoint, ...]:
    """The points of every committed stage of the plan, in plan order."""
    committed = [
        (trial, stage, manifest)
        for trial in plan.trials
        for stage in trial.stages
        if (manifest := store.manifest(stage))
    ]
    no_cot = {
        trial.name: manifest.metrics.examples_per_second
        for trial, _, manifest in committed
        if trial.method == "no_cot" and manifest.verdict == "good"
    }
    base = median(no_cot.values()) if no_cot else None
    undominated = pareto_set(_position(m) for _, _, m in committed if m.verdict == "good")
    points = []
    for trial, stage, manifest in committed:
        metrics = manifest.metrics
        points.append(
            FrontierPoint(
                trial=trial.name,
                method=trial.method,
                seed=trial.seed,
                stage=stage.index,
                stage_key=stage.key,
                step=stage.spec.first_step + stage.spec.steps,
                removed_tokens=metrics.removed_tokens,
                total_tokens=metrics.total_tokens,
                exact_match=metrics.exact_match,
                generated_tokens=metrics.generated_tokens,
                examples_per_second=metrics.examples_per_second,
                examples_per_second_batched=metrics.examples_per_second_batched,
                speedup=metrics.examples_per_second / base if base else None,
                verdict=manifest.verdict,
                pareto=manifest.verdict == "good" and _position(manifest) in undominated,
                seconds=metrics.train_seconds + metrics.evaluate_seconds,
                committed_at=manifest.committed_at,
                settings={field: "inf" if value == math.inf else value for field, value in trial.settings},
            )
        )
    return tuple(points)


def pareto_set(points: Iterable[tuple[int, float]]) -> set[tuple[int, float]]:
    """The (removed tokens, exact match) pairs that no other pair equals or beats in both."""
    best: dict[int, float] = {}
    for removed, exact_match in points:
        best[removed] = max(exact_match, best.get(removed, 0.0))
    kept, bar = set(), -1.0
    for removed in sorted(best, reverse=True):
        if best[removed] > bar:
            bar = best[removed]
            kept.add((removed, bar))
    return kept


def _position(manifest: Manifest) -> tuple[int, float]:
    return manifest.metrics.removed_tokens, manifest.metrics.exact_match
