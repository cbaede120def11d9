"""The report page of a job: gathers its values for page.html."""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator import labels
from orchestrator.config import job_toml
from orchestrator.plan.grid import symbols
from orchestrator.report.headlines import headlines
from orchestrator.report.html import FOLDER, rendered, sections
from orchestrator.report.html.probing import probed_trials
from orchestrator.report.picture import Panel, legend, removal_panel, speed_panel
from orchestrator.report.sentence import reading
from orchestrator.results.findings import Findings, belongs
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.groups import CROWD, NOTHING
from orchestrator.store import is_fork

PANELS = 24
"""The configurations of a search that have a picture of their own."""
OPEN_ROWS = 12
"""The rows from which on a table of restarts is folded."""
VARIABLE = re.compile(r"var\(--(\w+)\)")
"""A colour of picture.css. Only browsers know CSS variables, so a file that stands alone names its colours."""


def report_html(findings: Findings) -> str:
    """Return the page of a job, whatever part of it is committed."""
    shown, best = findings.shown, _best_of_equals(findings)
    return rendered(
        "page.html",
        job=findings.plan.job.name,
        light=labels.LIGHT.items(),
        dark=labels.DARK.items(),
        progress=_progress(findings),
        says=reading(findings),
        answers=headlines(findings) if findings.points else (),
        nothing=NOTHING,
        legend=legend(findings) if shown else (),
        removal=removal_panel(findings, shown, findings.others) if shown else None,
        speed=speed_panel(shown) if shown else None,
        caption=" ".join(_caption(findings)),
        choice=sections.choice(findings, best),
        coupled=any(point.method == "icot_kd" and point.removed_tokens for point in best),
        ranking=sections.ranking(findings) if findings.points else None,
        panels=list(_panels(findings)),
        effects=sections.field_effects(findings),
        restarts=sections.restarts(findings),
        failures=len(findings.failed_attempts),
        open_rows=OPEN_ROWS,
        costs=sections.costs(findings),
        probed=probed_trials(findings),
        configuration=sections.configuration(findings),
        fork=is_fork(findings.plan.job.name, findings.store),
        job_file=job_toml(findings.plan.job),
        versions=sections.versions(findings),
        commits=sections.commits(findings),
        stage_keys=len(findings.manifests),
        stages=sections.stages(findings),
    )


def frontier_svg(findings: Findings) -> str:
    """Return the picture of the page as a file that stands alone, in the colours of the light page."""
    shown = findings.shown
    return rendered(
        "frontier.svg",
        paper=labels.LIGHT["paper"],
        css=VARIABLE.sub(lambda found: labels.LIGHT[found[1]], (FOLDER / "picture.css").read_text("utf-8")),
        about=reading(findings) if shown else NOTHING,
        legend=legend(findings) if shown else (),
        removal=removal_panel(findings, shown, findings.others) if shown else None,
        speed=speed_panel(shown) if shown else None,
    )


def _best_of_equals(findings: Findings) -> list[FrontierPoint]:
    """Return a stage for each point of the Pareto set: of equals the one that writes least, then the latest."""
    best: dict[tuple[int, float], FrontierPoint] = {}
    for point in sorted(findings.points, key=lambda p: (-p.generated_tokens, p.step)):
        if point.pareto:
            best[point.removed_tokens, point.exact_match] = point
    return [point for _, point in sorted(best.items(), reverse=True)]


def _progress(findings: Findings) -> str:
    """Return how complete the job is, and as of when."""
    if not findings.manifests:
        return ""
    standing = {planned.key for c in findings.chains for planned, _ in zip(c.trial.stages, c.standing, strict=False)}
    last = max(manifest.committed_at for manifest in findings.manifests.values())
    return f" · {len(standing)} of {len(findings.plan.unique_stages)} stages · last commit {labels.utc(last)}"


def _panels(findings: Findings) -> Iterator[tuple[str, Panel]]:
    """Yield a small picture of each of the best configurations of a search."""
    for standing in findings.ranked[:PANELS]:
        own = [g for g in findings.groups if g.method == "stepwise" and belongs(g, standing.settings)]
        if own:
            yield symbols(standing.settings), removal_panel(findings, own)


def _caption(findings: Findings) -> Iterator[str]:
    yield from labels.caption(findings.plan.job)
    yield f"Exact match is measured on {findings.examples:,} validation examples; decoding is greedy."
    yield "Bands and whiskers are 95 % intervals: of one seed what so many examples leave open (Wilson), of several"
    yield "that of their mean (Student's t), if it is wider. Dashed lines: a baseline's last committed stage."
    if any(len(group.trials) > 1 for group in findings.shown):
        yield "A mean is over the seeds that got as far."
    yield "On the right a line joins what is worth having of a method for its speed."
    if any(group.crowded for group in findings.shown):
        yield f"Where there are more than {CROWD} seeds only the mean is marked; the paler band and the whiskers hold"
        yield "nine in ten of them, frontier.csv has every one."
