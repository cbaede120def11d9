"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from orchestrator.config import Job, Search
from orchestrator.identity import non_default
from orchestrator.plan import Plan
from orchestrator.report import words
from orchestrator.report.markup import Column, paragraph, table
from orchestrator.report.reading import reading
from orchestrator.report.style import CSS
from orchestrator.report.svg import frontier_svg, legend
from orchestrator.report.trials import Setback, removals, setbacks
from orchestrator.search import Standing, standings
from orchestrator.search.objective import value_words
from orchestrator.space import sentence, symbols
from orchestrator.store import pruned_trials
from orchestrator.store.chain import Chain, replay_all
from orchestrator.store.frontier import FrontierPoint
from orchestrator.store.stages import Manifest, StageStore

Manifests = Mapping[str, Manifest]
"""What the trials of a plan committed, failed attempts too, by stage key."""


def report_html(plan: Plan, store: StageStore, points: Sequence[FrontierPoint]) -> str:
    """The page of a job, whatever part of it is committed."""
    chains = replay_all(plan, store)
    manifests = {tried.stage.key: tried.manifest for chain in chains for tried in chain.attempts}
    ranked = standings(plan, points, pruned_trials(plan, store.root))
    says = reading(plan, points, ranked)
    results = _results(plan, store, points, manifests, says, ranked) if points else []
    title = escape(f"{plan.job.name}: Stepwise report")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>",
            _header(plan, says, manifests),
            *results,
            _configuration(plan.job),
            *([_provenance(chains, manifests)] if manifests else []),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _header(plan: Plan, says: str, manifests: Manifests) -> str:
    passed = sum(manifest.passed for manifest in manifests.values())
    facts = [f"{passed} of {len(plan.unique_stages)} stages committed"]
    if manifests:
        facts.append(f"{words.minutes(_seconds(manifests))} minutes of training and evaluation")
        facts.append(f"last commit {words.utc(max(m.committed_at for m in manifests.values()))}")
    facts_line = f'<p class="facts">{" · ".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p>'
    return (
        f'<header>\n<p class="over">Stepwise Internalization report</p>\n<h1>{escape(plan.job.name)}</h1>\n'
        f"{paragraph(says, 'lead')}\n{facts_line}\n</header>"
    )


def _results(
    plan: Plan,
    store: StageStore,
    points: Sequence[FrontierPoint],
    manifests: Manifests,
    says: str,
    ranked: Sequence[Standing],
) -> list[str]:
    examples = max(m.metrics.examples for m in manifests.values())
    failed = setbacks(plan, store)
    return [
        "<figure>",
        legend((point.method for point in points), restarted=bool(failed)),
        f'<div class="plot">{frontier_svg(points, removals(plan, store), failed, says)}</div>',
        f"<figcaption>{escape(' '.join(_caption(plan.job, examples)))}</figcaption>\n</figure>",
        *([_ranking(plan.job.search, ranked)] if plan.job.search else []),
        _choice(store, points, manifests),
        *([_restarts(failed)] if failed else []),
        _all_stages(points, manifests),
    ]


def _ranking(search: Search, ranked: Sequence[Standing]) -> str:
    columns = [Column("configuration", "text"), Column("seeds", "text"), Column("objective"), Column("", "text")]
    rows = [
        [
            sentence(standing.settings),
            ", ".join(map(str, standing.seeds)),
            value_words(search, standing.value),
            "pruned" if standing.pruned else "",
        ]
        for standing in ranked
    ]
    caption = f"Configurations by the objective, {search.aggregate} over the seeds; a diverged seed counts as 0"
    return f"<section>\n<h2>Which configuration is best?</h2>\n{table(caption, columns, rows)}\n</section>"


def _caption(job: Job, examples: int) -> Iterator[str]:
    """What a stage is and how it is measured: what papers and code often leave in the dark."""
    if job.schedule.type == "reference":
        yield "A stage of the reference schedule is one epoch; a removal can fall anywhere in it."
    else:
        yield f"A stage boundary of the {job.schedule.type} schedule lies just before a removal."
    when = "each once the probe has recovered" if job.schedule.type == "adaptive" else "evenly"
    yield f"Inside a stage tokens are removed one by one, {when}."
    searched = job.search.space if job.search else {}
    if "training.reset_optimizer" not in searched:
        yield f"AdamW is {'rebuilt' if job.training.reset_optimizer else 'kept'} at every removal."
    smoothing = "searched" if "schedule.smoothing_lambda" in searched else f"{job.schedule.smoothing_lambda:g}"
    yield f"Smoothing offsets (λ = {smoothing}) are drawn per example; validation uses offset 0."
    yield f"Exact match is measured on {examples:,} validation examples; decoding is greedy."
    yield "Dashed lines: a baseline's last committed stage, one line a seed."


def _choice(store: StageStore, points: Sequence[FrontierPoint], manifests: Manifests) -> str:
    """One row a Pareto point; of equals, the stage that writes least, then the latest."""
    best: dict[tuple[int, float], FrontierPoint] = {}
    for point in sorted(points, key=lambda p: (-p.generated_tokens, p.step)):
        if point.pareto:
            best[point.removed_tokens, point.exact_match] = point
    searched = any(point.settings for point in points)
    columns = [
        Column("method", "text"),
        *[Column("settings", "text")] * searched,
        Column("seed"),
        Column("exact match"),
        Column("tokens removed"),
        Column("tokens written"),
        Column("speed-up"),
        Column("model folder", "code"),
    ]
    coupled = any(point.method == "icot_kd" and point.removed_tokens for _, point in best.items())
    rows = [
        [
            words.LABELS[p.method],
            *[symbols(tuple(p.settings.items()))] * searched,
            str(p.seed),
            words.exact(p.exact_match),
            f"{p.removed_tokens} of {p.total_tokens}",
            words.tokens(p.generated_tokens),
            words.speedup(p.speedup),
            _folder(store, manifests[p.stage_key]),
        ]
        for _, p in sorted(best.items(), reverse=True)
    ]
    return (
        "<section>\n<h2>Which model should I use?</h2>\n"
        + table("No other stage is as accurate with as many tokens removed", columns, rows)
        + '\n<p class="note">Folders lie below the store; load one with '
        "<code>AutoModelForCausalLM.from_pretrained(folder)</code>"
        + (", ICoT-KD's two networks with <code>orchestrator.method.thoughts.load_coupled(folder)</code>" * coupled)
        + ". Speed-up is examples/s at batch 1 over that of "
        "No CoT. Tokens written are the mean per answer, with what is left of the CoT and the separators.</p>"
        "\n</section>"
    )


def _restarts(failed: Sequence[Setback]) -> str:
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
    rows = [[f.trial, str(f.stage), str(f.removed_tokens), f"{f.steps:,}", f.verdict, f.why, f.then] for f in failed]
    return (
        "<section>\n<h2>Restarts</h2>\n"
        + table("Attempts that failed: their records are kept, their weights are not", columns, rows)
        + "\n</section>"
    )


def _all_stages(points: Sequence[FrontierPoint], manifests: Manifests) -> str:
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
            words.exact(p.exact_match),
            _lowest(manifests[p.stage_key]),
            words.tokens(p.generated_tokens),
            words.rate(p.examples_per_second),
            words.rate(p.examples_per_second_batched),
            words.speedup(p.speedup),
            f"{p.step:,}",
            words.minutes(p.seconds),
            p.verdict,
        ]
        for p in points
    ]
    return (
        "<details>\n<summary>All stages, trial by trial</summary>\n"
        + table("Trials that share a stage each show it", columns, rows)
        + "\n</details>"
    )


def _lowest(manifest: Manifest) -> str:
    after = [removal.exact_match for removal in manifest.metrics.after_removal]
    return words.exact(min(after)) if after else ""


def _configuration(job: Job) -> str:
    fields = {**non_default(job), "task": non_default(job.task), "model": non_default(job.model)}
    rows = [[path, json.dumps(value, ensure_ascii=False)] for path, value in _leaves(fields)]
    columns = [Column("field", "code"), Column("value", "code")]
    fields_table = table("Fields that differ from their defaults", columns, rows)
    return f"<section>\n<h2>Configuration</h2>\n{fields_table}\n</section>"


def _leaves(fields: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _provenance(chains: Sequence[Chain], manifests: Manifests) -> str:
    trials: dict[str, list[str]] = {}
    for chain in chains:
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
        [
            key,
            ", ".join(trials[key]),
            words.utc(m.committed_at),
            f"{m.metrics.train_seconds:,.0f}",
            m.attempt,
        ]
        for key, m in manifests.items()
    ]
    total = sum(m.metrics.train_seconds for m in manifests.values())
    return (
        "<section>\n<h2>Provenance</h2>\n"
        + table("Versions", [Column("package", "text"), Column("version", "text")], _versions(manifests))
        + paragraph(f"{total:,.0f} seconds of training, shared stages counted once.", "note")
        + f"\n<details>\n<summary>{len(manifests)} stage keys</summary>\n"
        + table("Training seconds and UTC time of every commit", columns, rows)
        + "\n</details>\n</section>"
    )


def _versions(manifests: Manifests) -> list[list[str]]:
    found: dict[str, set[str]] = {}
    for manifest in manifests.values():
        for name, version in manifest.versions.items():
            found.setdefault(name, set()).add(version)
    versions = [[name, ", ".join(sorted(of_name))] for name, of_name in found.items()]
    return [*versions, ["Python of this report", platform.python_version()]]


def _folder(store: StageStore, manifest: Manifest) -> str:
    return store.folder(manifest).relative_to(store.root).as_posix()


def _seconds(manifests: Manifests) -> float:
    return sum(m.metrics.train_seconds + m.metrics.evaluate_seconds for m in manifests.values())
