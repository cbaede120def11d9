"""Shows where the thought went: the results that linear probes read off the stages of ``stepwise probe``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

from orchestrator.report.html.sections import Column, PageTable
from orchestrator.results.findings import Findings
from orchestrator.store import job_folder

Skills = tuple[tuple[float, ...], ...]
"""The skills by layer x position: 0 no better than a constant, 1 perfect."""


@dataclass(frozen=True)
class Read:
    """One intermediate result: how well it is read from a stage's model, and from an untrained one."""

    target: str
    family: str
    trained: Skills
    untrained: Skills


@dataclass(frozen=True)
class ProbedStage:
    """A stage that stands, and the results that linear probes read off it."""

    trial: str
    stage: int
    removed_tokens: int
    total_tokens: int
    positions: tuple[str, ...]
    reads: tuple[Read, ...]

    @property
    def words(self) -> str:
        """The stage and its removed tokens, for people."""
        return f"stage {self.stage}, {self.removed_tokens} of {self.total_tokens} removed"


def probe_folder(store: Path, job: str) -> Path:
    """Return where ``stepwise probe`` leaves its results for a job's stages."""
    return job_folder(store, job, "probe")


def probe_name(trial: str, stage: int, key: str) -> str:
    """Return the name of a stage's files there. A stage made anew has another key: the old results are not shown."""
    return f"{trial}-{stage}-{key[:8]}"


def probed_stages(findings: Findings) -> tuple[ProbedStage, ...]:
    """Return the probed stages among those that stand, by trial and in order."""
    folder = probe_folder(findings.store.root, findings.plan.job.name)
    if not folder.is_dir():
        return ()
    found = []
    for chain in findings.chains:
        for tried in chain.standing:
            file = folder / f"{probe_name(chain.trial.name, tried.stage.index, tried.stage.key)}.csv"
            if file.is_file():
                metrics = tried.manifest.metrics
                counts = metrics.removed_tokens, metrics.total_tokens
                found.append(ProbedStage(chain.trial.name, tried.stage.index, *counts, *_contents(file)))
    return tuple(found)


def _contents(file: Path) -> tuple[tuple[str, ...], tuple[Read, ...]]:
    """Return the names of the positions, and every intermediate result."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    skills: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
    positions: dict[str, str] = {}
    for row in rows:
        grid = skills.setdefault((row["target"], row["family"]), {"trained": {}, "untrained": {}})[row["model"]]
        grid.setdefault(row["layer"], []).append(max(0.0, float(row["skill"])))
        positions[row["position"]] = row["symbol"]
    reads = (
        Read(*names, *(tuple(map(tuple, grid.values())) for grid in models.values()))
        for names, models in skills.items()
    )
    return tuple(positions.values()), tuple(reads)


@dataclass(frozen=True)
class ProbeMap:
    """The mean skill over the results of one kind in a stage."""

    title: str
    positions: tuple[str, ...]
    skills: Skills
    best: str
    """The best site, in words."""


@dataclass(frozen=True)
class ProbedTrial:
    """The probed stages of a trial side by side."""

    readings: PageTable
    """The best reading of every result."""
    maps: Sequence[Sequence[ProbeMap]]
    """A row for each kind of result, with a map for each stage."""
    most_positions: int


def probed_trials(findings: Findings) -> list[ProbedTrial]:
    """Return what the page shows of the trials that have a probed stage."""
    by_trial = groupby(probed_stages(findings), lambda stage: stage.trial)
    return [_probed_trial(list(stages)) for _, stages in by_trial]


def _probed_trial(stages: Sequence[ProbedStage]) -> ProbedTrial:
    columns = [Column("intermediate result", "text")]
    columns += [Column(f"stage {stage.stage}: {stage.removed_tokens} removed", "share") for stage in stages]
    columns.append(Column("untrained", "share"))
    rows = []
    for reads in zip(*(stage.reads for stage in stages), strict=True):
        grids = [*(read.trained for read in reads), reads[-1].untrained]
        rows.append([reads[0].target, *(f"{max(map(max, grid)):.2f}" for grid in grids)])
    says = (
        f"{stages[0].trial}: how well a linear probe reads a result at its best layer and position, "
        "0 as a constant, 1 without error"
    )
    kinds = dict.fromkeys(read.family for read in stages[0].reads)
    return ProbedTrial(
        PageTable(says, columns, rows),
        [[_map(stage, kind) for stage in stages] for kind in kinds],
        max(len(stage.positions) for stage in stages),
    )


def _map(stage: ProbedStage, kind: str) -> ProbeMap:
    grids = [read.trained for read in stage.reads if read.family == kind]
    mean = tuple(tuple(map(fmean, zip(*layers, strict=True))) for layers in zip(*grids, strict=True))
    best, layer, position = max(
        (skill, layer, position) for layer, line in enumerate(mean) for position, skill in enumerate(line)
    )
    at = f"read best after layer {layer} at {stage.positions[position]}, {best:.2f}"
    return ProbeMap(f"{kind}, {stage.words}", stage.positions, mean, at)
