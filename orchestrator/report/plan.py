"""The plan as a document and as a table: what will be done, and what it will cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Group
from rich.table import Table

from orchestrator.config import Job, ScratchModel
from orchestrator.plan import Plan, PlannedStage
from orchestrator.report.text import count, duration
from orchestrator.store import Manifest, StageStore, replay_all
from orchestrator.store.chain import standing_manifests
from orchestrator.tasks import make_task

TYPICAL_FLOPS_PER_CORE = 8e10
"""Of a training step on one CPU core in bf16, as measured here; replaced by the store's own figures."""
BYTES_PER_PARAMETER = 12
"""Of a stage: fp32 weights and AdamW's two moments."""


def plan_document(plan: Plan, store: StageStore) -> dict[str, Any]:
    """Everything the plan says, as JSON. Times and bytes are estimates; None where nothing is known."""
    shared, unique = plan.shared, plan.unique_stages
    chains = replay_all(plan, store)
    manifests = standing_manifests(chains)
    job_of = {stage.key: trial.job for trial in plan.trials for stage in trial.stages}
    work = {key: _work(job_of[key], stage) for key, stage in unique.items()}
    rate = _seconds_per_work(plan.job, work, manifests)
    trials = []
    for trial in plan.trials:
        stages = [
            {
                "stage": stage.index,
                "kind": stage.spec.kind,
                "key": stage.key,
                "steps": stage.spec.steps,
                "removed_from": stage.spec.removed_from,
                "removed_to": stage.spec.removed_to,
                "shared": stage.key in shared,
                "in_store": stage.key in manifests,
                "seconds": None if rate is None else round(rate * work[stage.key], 1),
            }
            for stage in trial.stages
        ]
        trials.append({"trial": trial.name, "steps": trial.steps, "stages": stages})
    left = {stage.key: None for chain in chains if chain.next for stage in chain.trial.stages[len(chain.standing) :]}
    size = _stage_bytes(plan.job, manifests)
    return {
        "job": plan.job.name,
        "total_tokens": plan.total_tokens,
        "estimated": plan.estimated,
        "trials": trials,
        "steps": sum(trial.steps for trial in plan.trials),
        "steps_shared": sum(t.steps for t in plan.trials) - _steps(unique.values()),
        "steps_left": _steps(unique[key] for key in left),
        "to_propose": plan.to_propose,
        "seconds_left": None if rate is None else round(sum(rate * work[key] for key in left)),
        "disk_bytes_left": None if size is None else size * len(left),
    }


def plan_table(document: dict[str, Any]) -> Group:
    """The document for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("trial", "stage", "removed", "steps", "about", ""):
        table.add_column(heading, justify="left" if heading in ("trial", "") else "right", no_wrap=True)
    for trial in document["trials"]:
        for stage in trial["stages"]:
            table.add_row(
                "" if stage["stage"] else trial["trial"],
                str(stage["stage"]),
                f"{stage['removed_to']}/{document['total_tokens']}",
                f"{stage['steps']:,}",
                duration(stage["seconds"]),
                ", ".join(_remarks(stage)),
            )
    return Group(table, "", *_summary(document))


def _remarks(stage: dict[str, Any]) -> Iterator[str]:
    if stage["kind"] != "train":
        yield stage["kind"].replace("_", " ")
    if stage["in_store"] or stage["shared"]:
        yield "in the store" if stage["in_store"] else "shared"


def _summary(document: dict[str, Any]) -> list[str]:
    disk = document["disk_bytes_left"]
    to_propose = document["to_propose"]
    return [
        *(
            [f"{count(to_propose, 'configuration')} more to be proposed while it runs, not in these sums"]
            * bool(to_propose)
        ),
        *(["the longest CoT is estimated; the tokenizer counts when the job first runs"] * document["estimated"]),
        f"{count(len(document['trials']), 'trial')}, {document['steps']:,} steps, "
        f"{document['steps_shared']:,} of them shared; "
        f"left to run: {document['steps_left']:,} steps",
        "time and disk are not known before a first stage"
        if disk is None
        else f"about {duration(document['seconds_left'])} of one core's time and {disk / 1e6:,.0f} MB of disk",
    ]


def _steps(stages: Iterable[PlannedStage]) -> int:
    return sum(stage.spec.steps for stage in stages)


def _work(job: Job, stage: PlannedStage) -> int:
    """Tokens that pass through the model while the stage trains, about, times its weights where they are known."""
    length = make_task(job.task).example_symbols + 3 - (stage.spec.removed_from + stage.spec.removed_to) // 2
    return stage.spec.steps * job.training.batch_size * length * (_parameters(job) or 1)


def _seconds_per_work(job: Job, work: dict[str, int], manifests: dict[str, Manifest]) -> float | None:
    if manifests:
        seconds = sum(m.metrics.train_seconds + m.metrics.evaluate_seconds for m in manifests.values())
        return seconds / sum(work[key] for key in manifests)
    return None if _parameters(job) is None else 6 / TYPICAL_FLOPS_PER_CORE


def _parameters(job: Job) -> int | None:
    """Weights of a model from scratch; a pretrained one is not opened for a plan."""
    if not isinstance(job.model, ScratchModel):
        return None
    return 12 * job.model.layers * job.model.width**2


def _stage_bytes(job: Job, manifests: dict[str, Manifest]) -> int | None:
    for manifest in manifests.values():
        if manifest.files:
            return sum(file.size for file in manifest.files)
    parameters = _parameters(job)
    return None if parameters is None else BYTES_PER_PARAMETER * parameters
