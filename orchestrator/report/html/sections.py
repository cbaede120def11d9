"""The sections of the report page below its picture: tables, and what stands around them."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

from orchestrator import labels
from orchestrator.config import job_toml
from orchestrator.plan.grid import sentence, symbols, text
from orchestrator.report.html.markup import Column, folded, paragraph, section, table
from orchestrator.report.html.svg import Drawing, removal_svg
from orchestrator.results.cost import Spent
from orchestrator.results.findings import Findings, belongs
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.intervals import wilson
from orchestrator.results.ranking import Standing, value_words
from orchestrator.store import Manifest, is_fork

MOST_ROWS = 500
"""Of the tables that grow with the trials; frontier.csv has every stage."""
PANELS = 24
PANEL_HEIGHT = 120
OPEN_ROWS = 12
"""A longer table of restarts is folded."""


def choice(findings: Findings) -> str:
    """One row a Pareto point; of equals, the stage that writes least, then the latest."""
    best: dict[tuple[int, float], FrontierPoint] = {}
    for point in sorted(findings.points, key=lambda p: (-p.generated_tokens, p.step)):
        if point.pareto:
            best[point.removed_tokens, point.exact_match] = point
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
    coupled = any(p.method == "icot_kd" and p.removed_tokens for p in best.values())
    rows = [
        [
            labels.LABELS[p.method],
            *[symbols(tuple(p.settings.items()))] * searched,
            str(p.seed),
            labels.exact(p.exact_match),
            _between(wilson(p.exact_match, findings.examples)),
            f"{p.removed_tokens} of {p.total_tokens}",
            labels.tokens(p.generated_tokens),
            labels.rate(p.examples_per_second),
            labels.speedup(p.speedup),
            _folder(findings, findings.manifests[p.stage_key]),
        ]
        for _, p in sorted(best.items(), reverse=True)
    ]
    return section(
        "Which model should I use?",
        table("The Pareto set: no other stage is as accurate with as many tokens removed", columns, rows),
        '<p class="note">Folders lie below the store; load one with '
        "<code>AutoModelForCausalLM.from_pretrained(folder)</code>"
        + (
            ", ICoT-KD's two networks with <code>orchestrator.method.icot_kd.thoughts.load_coupled(folder)</code>"
            * coupled
        )
        + ". Examples/s are at batch 1, speed-up is over "
        "No CoT. Tokens written are the mean per answer, with what is left of the CoT and the separators.</p>",
    )


def ranking(findings: Findings) -> str:
    """The configurations of a search, best first, and a small picture of each."""
    search, ranked = findings.plan.job.search, findings.ranked
    if search is None:
        return ""
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
    says += _first_of(len(ranked), "")
    return section("Which configuration is best?", table(says, columns, rows), _panels(findings, ranked))


def _panels(findings: Findings, ranked: Sequence[Standing]) -> str:
    panels = []
    for number, standing in enumerate(ranked[:PANELS]):
        own = [g for g in findings.groups if g.method == "stepwise" and belongs(g, standing.settings)]
        if own:
            drawing = Drawing(own, findings.after_removal, findings.crosses(own))
            title = symbols(standing.settings)
            picture = removal_svg(drawing, f"panel{number}", title, PANEL_HEIGHT, reachable=False)
            panels.append(f'<figure><p>{escape(title)}</p><div class="plot">{picture}</div></figure>')
    return f'<div class="panels">{"".join(panels)}</div>'


def restarts(findings: Findings) -> str:
    """Every attempt that was thrown away, why, and what was done instead."""
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
    failed = len(findings.failed_attempts)
    says = f"Attempts that failed: their records are kept, their weights are not{_first_of(failed, '')}"
    attempts = table(says, columns, rows)
    return section("Restarts", attempts if failed <= OPEN_ROWS else folded(f"{failed:,} attempts", attempts))


def costs(findings: Findings) -> str:
    """Steps and hours, what sharing saved, and what failed attempts cost."""
    cost = findings.cost
    columns = [Column("what", "text"), Column("steps"), Column("hours"), Column("share")]
    rows = [
        _spent("taken, a shared stage once", cost.total, cost.total),
        _spent("of it lost to failed attempts", cost.lost, cost.total),
        _spent("saved by sharing stages, on top", cost.shared, cost.total),
        *([["still to come, if nothing fails", f"{cost.planned_steps:,}", "", ""]] if cost.planned_steps else []),
    ]
    says = "Training and evaluation, summed over trials whether or not they ran side by side"
    return section("What did it cost?", table(says, columns, rows))


def _spent(what: str, spent: Spent, total: Spent) -> list[str]:
    share = f"{100 * spent.steps / total.steps:.0f} %" if total.steps else ""
    return [what, f"{spent.steps:,}", f"{spent.seconds / 3600:,.2f}", share]


def all_stages(findings: Findings) -> str:
    """Every stage that stands, trial by trial, folded away."""
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
    rows = [
        [
            p.trial,
            str(p.stage),
            f"{p.removed_tokens} of {p.total_tokens}",
            *_measures(p, _lowest(findings.manifests[p.stage_key])),
            f"{p.step:,}",
            labels.minutes(p.seconds),
            p.verdict,
        ]
        for p in findings.points[:MOST_ROWS]
    ]
    says = f"Trials that share a stage each show it{_first_of(len(findings.points))}"
    return folded("All stages, trial by trial", table(says, columns, rows))


def _measures(point: FrontierPoint, lowest: str) -> tuple[str, ...]:
    """What was measured of a stage. Nobody measures a model that failed."""
    if not point.passed:
        return "-", lowest, "-", "-", "-", "-"
    return (
        labels.exact(point.exact_match),
        lowest,
        labels.tokens(point.generated_tokens),
        labels.rate(point.examples_per_second),
        labels.rate(point.examples_per_second_batched),
        labels.speedup(point.speedup),
    )


def _first_of(rows: int, rest: str = ", frontier.csv has all") -> str:
    """What to add to the caption of a table that would have so many rows."""
    return f"; the first {MOST_ROWS} of {rows:,}{rest}" if rows > MOST_ROWS else ""


def _lowest(manifest: Manifest) -> str:
    after = [removal.exact_match for removal in manifest.metrics.after_removal]
    return labels.exact(min(after)) if after else ""


def configuration(findings: Findings) -> str:
    """What the trials differ in, and the job as a file."""
    plan = findings.plan
    fields = list(dict.fromkeys(field for trial in plan.trials for field, _ in trial.settings))
    columns = [Column("method", "text"), *(Column(field, "text") for field in fields), Column("seeds", "text")]
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for trial in plan.trials:
        settings = {field: text(value) for field, value in trial.settings}
        row = labels.LABELS[trial.method], tuple(settings.get(field, "") for field in fields)
        groups.setdefault(row, []).append(str(trial.seed))
    shown = islice(groups.items(), MOST_ROWS)
    rows = [[method, *values, ", ".join(seeds)] for (method, values), seeds in shown]
    fork = is_fork(plan.job.name, findings.store)
    says = (
        "A fork: it goes on from a stage of another job, which these fields alone do not say."
        if fork
        else f"As a job file, without fields at their defaults; run it again with: stepwise run {plan.job.name}.toml"
    )
    return section(
        "Configuration",
        table(f"What the trials differ in{_first_of(len(groups), '')}", columns, rows),
        paragraph(says, "note"),
        f'<pre tabindex="0" aria-label="job file"><code>{escape(job_toml(plan.job))}</code></pre>',
    )


def provenance(findings: Findings) -> str:
    """With which versions, when, and under which keys everything was made."""
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
    versions = table(
        "Versions", [Column("package", "text"), Column("version", "text")], _versions(findings.manifests.values())
    )
    keys = len(findings.manifests)
    commits = table(f"Training seconds and UTC time of every commit{_first_of(keys)}", columns, rows)
    return section("Provenance", versions, folded(f"{keys:,} stage keys", commits))


def _versions(manifests: Iterable[Manifest]) -> list[list[str]]:
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        for name, version in manifest.versions.items():
            found.setdefault(name, set()).add(version)
    versions = [[name, ", ".join(sorted(of_name))] for name, of_name in found.items()]
    return [*versions, ["Python of this report", platform.python_version()]]


def _folder(findings: Findings, manifest: Manifest) -> str:
    return findings.store.folder(manifest).relative_to(findings.store.root).as_posix()


def _between(ends: tuple[float, float]) -> str:
    return f"{labels.exact(ends[0])}–{labels.exact(ends[1])}"
