"""From the points of a frontier to the value of a configuration and the order of all of them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

from orchestrator.config import Search
from orchestrator.plan import Plan, Trial
from orchestrator.plan.grid import Settings, sentence
from orchestrator.results.frontier import FrontierPoint


@dataclass(frozen=True)
class Standing:
    """A configuration among the others."""

    settings: Settings
    seeds: tuple[int, ...]
    value: float | None
    """The objective over all its seeds; None while one of them is unfinished."""
    pruned: bool
    """True if a seed was stopped early; the value counts what it did not reach as nothing."""


def standings(plan: Plan, points: Iterable[FrontierPoint], pruned: Container[str]) -> tuple[Standing, ...]:
    """Return every configuration of a search, best first, unfinished ones last. ``pruned``: names of stopped trials."""
    if plan.job.search is None:
        return ()
    of_trial: dict[str, list[FrontierPoint]] = {}
    for point in points:
        of_trial.setdefault(point.trial, []).append(point)
    search, unsorted = plan.job.search, []
    for settings, trials in plan.groups.items():
        values = [trial_value(search, trial, of_trial.get(trial.name, ()), trial.name in pruned) for trial in trials]
        known = [value for value in values if value is not None]
        value = None
        if len(known) == len(values):
            value = fmean(known) if search.aggregate == "mean" else min(known)
        seeds, stopped = tuple(trial.seed for trial in trials), any(trial.name in pruned for trial in trials)
        unsorted.append(Standing(settings, seeds, value, stopped))
    return tuple(sorted(unsorted, key=lambda s: (s.value is None, -(s.value or 0.0))))


def trial_value(search: Search, trial: Trial, points: Sequence[FrontierPoint], pruned: bool) -> float | None:
    """Return the objective of one trial: 0, the worst, if it gave up; None if it is unfinished."""
    if not all(point.passed for point in points):
        return 0.0
    if len(points) < len(trial.stages) and not pruned:
        return None
    last_at = {point.removed_tokens: point.exact_match for point in points}
    if search.objective == "area":
        return area(last_at, trial.stages[0].spec.total_tokens)
    return float(max((removed for removed, match in last_at.items() if match >= search.min_accuracy), default=0))


def area(last_at: Mapping[int, float], total: int) -> float:
    """Return the area under exact match over the share of removed tokens, by trapezoids: at most 1.

    ``last_at``: exact match by removed tokens, of ``total``. What was not reached counts as nothing. A search ranks
    by it, and MLflow has it as ``score/auc``.
    """
    trapezoids = ((b - a) * (at_a + at_b) / 2 for (a, at_a), (b, at_b) in pairwise(sorted(last_at.items())))
    return sum(trapezoids) / total


def best_line(plan: Plan, ranked: Sequence[Standing]) -> str:
    """Return the winner in one sentence without a full stop, and how many are worth as much."""
    finished = [standing for standing in ranked if standing.value is not None]
    search = plan.job.search
    if search is None or not finished:
        return f"none of {len(ranked)} configurations is finished yet"
    best, among = finished[0], "" if len(finished) == len(ranked) else f", of {len(finished)} finished configurations"
    seeds = f"seed {best.seeds[0]}" if len(best.seeds) == 1 else f"{search.aggregate} of {len(best.seeds)} seeds"
    equals = sum(standing.value == best.value for standing in finished) - 1
    tied = f", tied with {equals} more" if equals else ""
    return f"best: {sentence(best.settings)}: {value_words(search, best.value)} ({seeds}){tied}{among}"


def value_words(search: Search, value: float | None) -> str:
    """Return a value in words: ``area 0.710``, ``8 tokens removed at exact match 0.9``."""
    if value is None:
        return "unfinished"
    if search.objective == "area":
        return f"area {value:.3f}"
    return f"{value:g} tokens removed at exact match {search.min_accuracy:g}"


def of_configuration(plan: Plan, settings: Settings) -> Plan:
    """Return the plan of one configuration's trials, with the baselines that go with it."""
    return replace(plan, trials=tuple(trial for trial in plan.trials if set(trial.settings) <= set(settings)))
