"""The frontier: accuracy against removed tokens, from the committed stages of a plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from orchestrator.config import Method, Scalar
from orchestrator.method.stage import PASSED, Record, Verdict
from orchestrator.plan import Plan, Trial
from orchestrator.store import Manifest, StageStore
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import replay_all

Work = tuple[str, str, float]
"""The things that decoding speed depends on: the model as its job describes it, the kind of stage (a coupled model
is two networks), and the mean tokens written."""

HALF = 0.5
"""The least exact match of a model worth using."""


class FrontierPoint(Record):
    """One committed stage of one trial."""

    trial: str
    method: Method
    seed: int
    stage: int
    stage_key: str
    step: int
    """The optimizer steps of the chain up to the end of this stage."""
    removed_tokens: int
    total_tokens: int
    exact_match: float
    generated_tokens: float
    """The mean tokens written per answer, with what is left of the CoT and the separators."""
    examples_per_second: float
    """The speed of greedy decoding, one example at a time: the best of all stages of this model that write equally
    many tokens. They do the same work, so the least disturbed measurement stands for all.
    """
    examples_per_second_batched: float
    speedup: float | None
    """The ratio of examples_per_second to that of No CoT's last stage with the same model; None until one stands."""
    verdict: Verdict
    restarts: int
    """The restarts of the trial up to this stage."""
    pareto: bool
    """True if no other point is at least as accurate with at least as many tokens removed, and better in one."""
    seconds: float
    """The wall time of training and evaluating this stage, and those before it that only prepare it."""
    committed_at: float
    settings: dict[str, Scalar]
    """The values that the search set, by job field; infinity as text, as JSON has no number for it."""

    @property
    def model(self) -> frozenset[tuple[str, Scalar]]:
        """The values that a search set of the model: only points that agree in them have speeds to compare."""
        return frozenset(setting for setting in self.settings.items() if setting[0].startswith("model."))

    @property
    def passed(self) -> bool:
        """True if the chain went on from here."""
        return self.verdict in PASSED


def frontier(plan: Plan, store: StageStore) -> tuple[FrontierPoint, ...]:
    """Return the points of every stage that stands and answers by itself, in plan order.

    A trial that gave up also has a point for the stage that it failed at.
    """
    return points_of(replay_all(plan, store))


def points_of(chains: Sequence[Chain]) -> tuple[FrontierPoint, ...]:
    """Return the frontier of a plan's trials, once they are replayed."""
    passed = [(c.trial, tried.manifest) for c in chains for tried in c.standing if tried.stage.spec.answers]
    rates: dict[Work, float] = {}
    for trial, manifest in passed:
        work = _work(trial, manifest)
        rates[work] = max(rates.get(work, 0.0), manifest.metrics.examples_per_second)
    bases = _no_cot_rates(passed, rates)
    undominated = pareto_set(_position(manifest) for _, manifest in passed)
    return tuple(point for chain in chains for point in _points(chain, rates, bases, undominated))


def _no_cot_rates(passed: Iterable[tuple[Trial, Manifest]], rates: Mapping[Work, float]) -> dict[str, float]:
    """Return the examples per second of No CoT's last stages, by model."""
    last = {trial.name: _work(trial, manifest) for trial, manifest in passed if trial.method == "no_cot"}
    by_model: dict[str, list[float]] = {}
    for work in last.values():
        by_model.setdefault(work[0], []).append(rates[work])
    return {model: median(of_model) for model, of_model in by_model.items()}


def _work(trial: Trial, manifest: Manifest) -> Work:
    kind = manifest.identity["stage"].get("kind", "train")
    return trial.job.model.model_dump_json(), kind, round(manifest.metrics.generated_tokens, 1)


def _points(
    chain: Chain, rates: Mapping[Work, float], bases: Mapping[str, float], undominated: set[tuple[int, float]]
) -> Iterator[FrontierPoint]:
    step, seconds = 0, 0.0
    for tried in chain.standing + ((chain.obstacle,) if chain.obstacle else ()):
        metrics, manifest = tried.manifest.metrics, tried.manifest
        step += tried.steps
        seconds += metrics.train_seconds + metrics.evaluate_seconds
        if manifest.passed and not tried.stage.spec.answers:
            continue
        work = _work(chain.trial, manifest)
        rate, base = rates.get(work, metrics.examples_per_second), bases.get(work[0])
        yield FrontierPoint(
            trial=chain.trial.name,
            method=chain.trial.method,
            seed=chain.trial.seed,
            stage=tried.stage.index,
            stage_key=tried.stage.key,
            step=step,
            removed_tokens=metrics.removed_tokens,
            total_tokens=metrics.total_tokens,
            exact_match=metrics.exact_match,
            generated_tokens=metrics.generated_tokens,
            examples_per_second=rate,
            examples_per_second_batched=metrics.examples_per_second_batched,
            speedup=rate / base if base else None,
            verdict=manifest.verdict,
            restarts=chain.restarts_before(tried),
            pareto=manifest.passed and _position(manifest) in undominated,
            seconds=seconds,
            committed_at=manifest.committed_at,
            settings={field: "inf" if value == math.inf else value for field, value in chain.trial.settings},
        )
        seconds = 0.0


def best_point(points: Iterable[FrontierPoint], asked: float) -> FrontierPoint | None:
    """Return the model to use, whatever its method.

    A model is worth using if it gets half of the answers right, or the share that is ``asked`` if that is less; while
    none does, all are. Among these the one with the most tokens removed is chosen, then the most accurate, then the
    one that writes least, then the latest.
    """
    passed = [point for point in points if point.passed]
    worth_using = [point for point in passed if point.exact_match >= min(HALF, asked)] or passed
    return max(worth_using, key=lambda p: (p.removed_tokens, p.exact_match, -p.generated_tokens, p.step), default=None)


def pareto_set(points: Iterable[tuple[int, float]]) -> set[tuple[int, float]]:
    """Return the (removed tokens, exact match) pairs that no other pair equals or beats in both."""
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
