"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from orchestrator import labels
from orchestrator.labels import caption
from orchestrator.report.headlines import Headline, headlines
from orchestrator.report.html import sections
from orchestrator.report.html.ablation import ablation
from orchestrator.report.html.markup import paragraph
from orchestrator.report.html.probing import probed_stages, thoughts
from orchestrator.report.html.style import CSS
from orchestrator.report.html.svg import Drawing, legend, removal_svg, speed_svg
from orchestrator.report.sentence import reading
from orchestrator.results.findings import Findings
from orchestrator.results.groups import CROWD, NOTHING


def report_html(findings: Findings) -> str:
    """The page of a job, whatever part of it is committed."""
    says = reading(findings)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{escape(findings.plan.job.name)}: Stepwise report</title>",
            f"<style>{CSS}</style>\n</head>\n<body>\n<main>",
            _header(findings, says),
            *(_results(findings, says) if findings.points else []),
            sections.configuration(findings),
            *([sections.provenance(findings)] if findings.manifests else []),
            *([sections.all_stages(findings)] if findings.points else []),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _header(findings: Findings, says: str) -> str:
    return (
        f'<header>\n<p class="over">Stepwise Internalization report{_progress(findings)}</p>\n'
        f"<h1>{escape(findings.plan.job.name)}</h1>\n{paragraph(says, 'lead')}\n"
        + (f'<dl class="answers">\n{_listed(headlines(findings))}\n</dl>\n' if findings.points else "")
        + "</header>"
    )


def _progress(findings: Findings) -> str:
    """How complete, and as of when."""
    if not findings.manifests:
        return ""
    standing = {planned.key for c in findings.chains for planned, _ in zip(c.trial.stages, c.standing, strict=False)}
    last = max(manifest.committed_at for manifest in findings.manifests.values())
    return f" · {len(standing)} of {len(findings.plan.unique_stages)} stages · last commit {labels.utc(last)}"


def _listed(found: Sequence[Headline]) -> str:
    return "\n".join(
        f"<div><dt>{answer.question}</dt><dd><strong>{escape(answer.value)}</strong> "
        f"<span>{escape(answer.detail)}</span>"
        + (f" <code>{escape(answer.code)}</code>" if answer.code else "")
        + "</dd></div>"
        for answer in found
    )


def _results(findings: Findings, says: str) -> list[str]:
    return [
        _figure(findings, says),
        *([sections.choice(findings)] if findings.shown else []),
        *([sections.ranking(findings), ablation(findings)] if findings.ranked else []),
        *([sections.restarts(findings)] if findings.failed_attempts else []),
        sections.costs(findings),
        *thoughts(probed_stages(findings)),
    ]


def _figure(findings: Findings, says: str) -> str:
    if not findings.shown:
        return paragraph(NOTHING)
    failed = findings.crosses(findings.shown)
    drawing = Drawing(findings.shown, findings.after_removal, failed, findings.others)
    return (
        f"<figure>\n{legend(drawing.groups, failed=bool(failed), others=bool(drawing.faint))}\n"
        f'<div class="plots"><div class="plot">{removal_svg(drawing, "frontier", says)}</div>\n'
        f'<div class="plot">{speed_svg(drawing, "speed")}</div></div>\n'
        f"<figcaption>{escape(' '.join(_caption(findings)))}</figcaption>\n</figure>"
    )


def _caption(findings: Findings) -> Iterator[str]:
    yield from caption(findings.plan.job)
    yield f"Exact match is measured on {findings.examples:,} validation examples; decoding is greedy."
    yield "Bands and whiskers: 95 % intervals, of several seeds that of their mean (Student's t), at least what"
    yield "so many examples leave open (Wilson), as of one seed. Dashed lines: a baseline's last committed stage."
    if any(len(group.trials) > 1 for group in findings.shown):
        yield "A mean is over the seeds that got as far."
    yield "On the right a line joins what is worth having of a method for its speed."
    if any(group.crowded for group in findings.shown):
        yield f"Of more than {CROWD} seeds only the mean is marked; the paler band and the whiskers hold nine in ten"
        yield "of them, frontier.csv has every one."
