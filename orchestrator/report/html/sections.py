"""The tables of the report page, as values; table.html lays them out."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from orchestrator import labels
from orchestrator.plan.grid import key_of, sentence, symbols, text
from orchestrator.results.cost import Spent
from orchestrator.results.effects import effects
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.intervals import interval, wilson
from orchestrator.results.ranking import value_words

MOST_ROWS = 500
"""The rows of a table that grows with the trials; frontier.csv has every stage."""

Cell = str | tuple[float, float, float]
"""Text, or (low, mean, high) between 0 and 1."""


class Column(NamedTuple):
    """A column and how its cells are set.

    ``share``: numbers from 0 to 1, on a ground that is the darker for more. ``interval``: drawn.
    """

    heading: str
    kind: Literal["text", "number", "code", "prose", "share", "interval"] = "number"


@dataclass(frozen=True)
class PageTable:
    """A table of the page."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def choice(findings: Findings, best: Sequence[FrontierPoint]) -> PageTable:
    """Return one row a model worth using. ``best``: the stages, one for each point of the Pareto set."""
    searched = any(point.settings for point in findings.points)
    columns = [
        Column("method", "text"),
        *[Column("settings", "text")] * searched,
        Column("seed"),
        Column("exact match"),
        Column("95 % interval"),
        Column("tokens removed"),
        Column("tokens written"),
        Column("examples/s"),
        Column("speed-up"),
        Column("model folder", "code"),
    ]
    rows = [
        [
            labels.LABELS[p.method],
            *[symbols(tuple(p.settings.items()))] * searched,
            str(p.seed),
            labels.exact(p.exact_match),
            _between(*wilson(p.exact_match, findings.examples)),
            f"{p.removed_tokens} of {p.total_tokens}",
            labels.tokens(p.generated_tokens),
            labels.rate(p.examples_per_second),
            labels.speedup(p.speedup),
            findings.model_folder(p),
        ]
        for p in best
    ]
    return PageTable("The Pareto set: no other stage is as accurate with as many tokens removed", columns, rows)


def ranking(findings: Findings) -> PageTable | None:
    """Return the configurations of a search, best first."""
    search, ranked = findings.plan.job.search, findings.ranked
    if search is None or not ranked:
        return None
    columns = [Column("configuration", "text"), Column("seeds", "text"), Column("objective"), Column("state", "text")]
    rows = [
        [
            sentence(standing.settings),
            ", ".join(map(str, standing.seeds)),
            value_words(search, standing.value),
            "pruned" if standing.pruned else "unfinished" if standing.value is None else "done",
        ]
        for standing in ranked[:MOST_ROWS]
    ]
    says = f"Configurations by the objective, {search.aggregate} over the seeds; one that gave up counts as 0"
    return PageTable(says + _first_of(len(ranked), ""), columns, rows)


def field_effects(findings: Findings) -> PageTable:
    """Return what each searched field does to exact match; no row where none has two values to compare yet."""
    columns = [
        Column("field", "text"),
        Column("value"),
        Column("trials"),
        Column("exact match"),
        Column("95 % interval"),
        Column("from 0 to 1", "interval"),
    ]
    says = (
        "Exact match at the end of every trial that has ended, whatever its seed and its other fields; "
        "one that gave up counts as 0. The interval is of the mean (Student's t), at least what the examples leave open"
    )
    rows = []
    for effect in effects(findings):
        low, high = interval(effect.shares, findings.examples)
        name, value, trials = key_of(effect.field), text(effect.value), str(len(effect.shares))
        rows.append([name, value, trials, labels.exact(effect.mean), _between(low, high), (low, effect.mean, high)])
    return PageTable(says, columns, rows)


def restarts(findings: Findings) -> PageTable:
    """Return every attempt that failed, why, and what was done instead."""
    columns = [
        Column("trial", "code"),
        Column("stage"),
        Column("tokens removed"),
        Column("steps"),
        Column("verdict", "text"),
        Column("why", "prose"),
        Column("then", "prose"),
    ]
    rows = [
        [f.trial, str(f.stage), str(f.removed_tokens), f"{f.steps:,}", f.verdict, f.why, f.then]
        for f in findings.failed_attempts[:MOST_ROWS]
    ]
    says = "Attempts that failed: their records are kept, their weights are not"
    return PageTable(says + _first_of(len(findings.failed_attempts), ""), columns, rows)


def costs(findings: Findings) -> PageTable:
    """Return steps and hours, what sharing saved, and what failed attempts cost."""
    cost = findings.cost

    def row(name: str, spent: Spent) -> list[str]:
        share = f"{100 * spent.steps / cost.total.steps:.0f} %" if cost.total.steps else ""
        return [name, f"{spent.steps:,}", f"{spent.seconds / 3600:,.2f}", share]

    rows = [
        row("taken, a shared stage once", cost.total),
        row("lost to failed attempts, of these", cost.lost),
        row("saved by sharing stages, on top", cost.shared),
        *([["still to come, if nothing fails", f"{cost.planned_steps:,}", "", ""]] if cost.planned_steps else []),
    ]
    columns = [Column("what", "text"), Column("steps"), Column("hours"), Column("share")]
    return PageTable("Training and evaluation, summed over trials whether or not they ran side by side", columns, rows)


def stages(findings: Findings) -> PageTable:
    """Return every stage that stands, trial by trial."""
    columns = [
        Column("trial", "code"),
        Column("stage"),
        Column("tokens removed"),
        Column("exact match"),
        Column("lowest right after a removal"),
        Column("tokens written"),
        Column("examples/s at batch 1"),
        Column("examples/s batched"),
        Column("speed-up"),
        Column("steps"),
        Column("minutes"),
        Column("verdict", "text"),
    ]
    rows = []
    for p in findings.points[:MOST_ROWS]:
        after = [removal.exact_match for removal in findings.manifests[p.stage_key].metrics.after_removal]
        lowest = labels.exact(min(after)) if after else ""
        measured = ["-", lowest, "-", "-", "-", "-"]  # nothing is measured of a model that failed
        if p.passed:
            measured = [
                labels.exact(p.exact_match),
                lowest,
                labels.tokens(p.generated_tokens),
                labels.rate(p.examples_per_second),
                labels.rate(p.examples_per_second_batched),
                labels.speedup(p.speedup),
            ]
        removed = f"{p.removed_tokens} of {p.total_tokens}"
        rows.append([p.trial, str(p.stage), removed, *measured, f"{p.step:,}", labels.minutes(p.seconds), p.verdict])
    return PageTable(f"Trials that share a stage each show it{_first_of(len(findings.points))}", columns, rows)


def configuration(findings: Findings) -> PageTable:
    """Return what the trials differ in."""
    trials = findings.plan.trials
    fields = list(dict.fromkeys(field for trial in trials for field, _ in trial.settings))
    groups: dict[tuple[str, ...], list[str]] = {}
    for trial in trials:
        settings = {field: text(value) for field, value in trial.settings}
        row = labels.LABELS[trial.method], *(settings.get(field, "") for field in fields)
        groups.setdefault(row, []).append(str(trial.seed))
    columns = [Column("method", "text"), *(Column(field, "text") for field in fields), Column("seeds", "text")]
    rows = [[*row, ", ".join(seeds)] for row, seeds in islice(groups.items(), MOST_ROWS)]
    return PageTable(f"What the trials differ in{_first_of(len(groups), '')}", columns, rows)


def versions(findings: Findings) -> PageTable:
    """Return the versions with which the stages were made."""
    found: dict[str, set[str]] = {}
    for manifest in findings.manifests.values():
        for name, version in manifest.versions.items():
            found.setdefault(name, set()).add(version)
    rows = [[name, ", ".join(sorted(of_name))] for name, of_name in found.items()]
    rows.append(["Python of this report", platform.python_version()])
    return PageTable("Versions", [Column("package", "text"), Column("version", "text")], rows)


def commits(findings: Findings) -> PageTable:
    """Return when everything was made, and under which keys."""
    trials: dict[str, list[str]] = {}
    for chain in findings.chains:
        for tried in chain.attempts:
            trials.setdefault(tried.stage.key, []).append(chain.trial.name)
    columns = [
        Column("stage key", "code"),
        Column("trials", "text"),
        Column("committed", "text"),
        Column("seconds"),
        Column("attempt", "code"),
    ]
    rows = [
        [key, ", ".join(trials[key]), labels.utc(m.committed_at), f"{m.metrics.train_seconds:,.0f}", m.attempt]
        for key, m in islice(findings.manifests.items(), MOST_ROWS)
    ]
    says = f"Training seconds and UTC time of every commit{_first_of(len(findings.manifests))}"
    return PageTable(says, columns, rows)


def _first_of(rows: int, rest: str = ", frontier.csv has all") -> str:
    """Return what to add to the caption of a table that would have so many rows."""
    return f"; the first {MOST_ROWS} of {rows:,}{rest}" if rows > MOST_ROWS else ""


def _between(low: float, high: float) -> str:
    return f"{labels.exact(low)}–{labels.exact(high)}"
