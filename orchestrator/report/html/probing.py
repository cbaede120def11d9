"""Where the thought went: what linear probes read off the stages that ``stepwise probe`` was asked about."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import fmean

from orchestrator.report.html.markup import Column, paragraph, section, table
from orchestrator.results.findings import Findings
from orchestrator.store import job_folder

CELL = 13
"""Width and height of a cell of a map, in SVG's units."""
MARGIN = 14
"""For the names of layers and positions."""

Skills = tuple[tuple[float, ...], ...]
"""Layer x position: 0 no better than a constant, 1 perfect."""


@dataclass(frozen=True)
class Read:
    """How well one intermediate result is read from a stage's model, and from an untrained one."""

    target: str
    family: str
    trained: Skills
    untrained: Skills


@dataclass(frozen=True)
class ProbedStage:
    """A stage that stands, and what linear probes read off it."""

    trial: str
    stage: int
    removed_tokens: int
    total_tokens: int
    positions: tuple[str, ...]
    reads: tuple[Read, ...]

    @property
    def words(self) -> str:
        return f"stage {self.stage}, {self.removed_tokens} of {self.total_tokens} removed"


def probe_folder(store: Path, job: str) -> Path:
    """Where ``stepwise probe`` leaves what it found in a job's stages."""
    return job_folder(store, job, "probe")


def probe_name(trial: str, stage: int, key: str) -> str:
    """Of a stage's files there: a stage made anew has another key, and what was read off the old one is not shown."""
    return f"{trial}-{stage}-{key[:8]}"


def probed_stages(findings: Findings) -> tuple[ProbedStage, ...]:
    """The probed stages among those that stand, by trial and in order."""
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
    """The names of the positions, and every intermediate result."""
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


def thoughts(stages: Sequence[ProbedStage]) -> Iterator[str]:
    """The section of the page, if any stage was probed."""
    if stages:
        parts = [part for _, of_trial in groupby(stages, lambda s: s.trial) for part in _trial(list(of_trial))]
        yield section("Where did the thought go?", *parts)


def _trial(stages: Sequence[ProbedStage]) -> Iterator[str]:
    yield _when(stages)
    yield paragraph(
        "The maps: how well they are read after each layer (0: the embeddings, at the bottom), position by position, "
        "the mean over a kind; a: first factor, b: second, E: separator, z: what is left of the CoT, c: answer. "
        "The answer is given up to each position. What an untrained model shows too, training did not put there.",
        "note",
    )
    cells = max(len(stage.positions) for stage in stages)
    for kind in dict.fromkeys(read.family for read in stages[0].reads):
        maps = "\n".join(_map(stage, kind) for stage in stages)
        yield f'<div class="maps" style="--cells:{cells}">\n{maps}\n</div>'


def _when(stages: Sequence[ProbedStage]) -> str:
    """The best reading of every result, stage by stage."""
    columns = [Column("intermediate result", "text")]
    columns += [Column(f"stage {stage.stage}: {stage.removed_tokens} removed", "share") for stage in stages]
    columns.append(Column("untrained", "share"))
    rows = [
        [reads[0].target, *(_best(read.trained) for read in reads), _best(reads[-1].untrained)]
        for reads in zip(*(stage.reads for stage in stages), strict=True)
    ]
    says = (
        f"{stages[0].trial}: how well a linear probe reads a result at its best layer and position, "
        "0 as a constant, 1 without error"
    )
    return table(says, columns, rows)


def _best(grid: Skills) -> str:
    return f"{max(map(max, grid)):.2f}"


def _map(stage: ProbedStage, kind: str) -> str:
    grids = [read.trained for read in stage.reads if read.family == kind]
    mean = [[fmean(cells) for cells in zip(*layers, strict=True)] for layers in zip(*grids, strict=True)]
    title = f"{kind}, {stage.words}"
    best, layer, position = max(
        (skill, layer, position) for layer, line in enumerate(mean) for position, skill in enumerate(line)
    )
    says = f"{title}: read best after layer {layer} at {stage.positions[position]}, {best:.2f}"
    width, height = MARGIN + CELL * len(stage.positions), CELL * len(mean) + MARGIN
    return (
        f'<figure><p>{escape(title)}</p><svg class="map" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(says)}">'
        f'<rect class="ground" x="{MARGIN}" width="{width - MARGIN}" height="{height - MARGIN}"/>'
        f"{''.join(_cells(mean))}{''.join(_names(len(mean), stage.positions))}</svg></figure>"
    )


def _cells(mean: Sequence[Sequence[float]]) -> Iterator[str]:
    for layer, line in enumerate(mean):
        y = CELL * (len(mean) - 1 - layer)
        for position, skill in enumerate(line):
            if skill >= 0.01:
                yield (
                    f'<rect x="{MARGIN + CELL * position}" y="{y}" width="{CELL}" height="{CELL}" '
                    f'fill-opacity="{skill:.2f}"/>'
                )


def _names(layers: int, positions: Iterable[str]) -> Iterator[str]:
    for layer in {0, layers - 1}:
        yield f'<text x="{MARGIN - 4}" y="{CELL * (layers - layer) - 3}" text-anchor="end">{layer}</text>'
    for number, name in enumerate(positions):
        at = MARGIN + CELL * number + CELL / 2
        short = "#" if name == "####" else name
        yield f'<text x="{at:g}" y="{CELL * layers + 10}" text-anchor="middle">{escape(short)}</text>'
