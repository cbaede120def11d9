"""What a trial tried in vain, as MLflow shows it: a run below the trial's for every attempt that failed.

Its loss is at the steps really taken, as the trial's is, so the curves lie over each other. The trial's own run has
none of it, but for the attempt that it gave up at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestrator.identity import digest
from orchestrator.shown import markdown
from orchestrator.tracking.records import RunRecord, Value
from orchestrator.trials.chain import Attempt, Chain


def attempt_records(trial_uid: str, chain: Chain) -> Iterator[RunRecord]:
    """A run for each, in order. An attempt has a seed or a pace of its own, so its stage key is its own too."""
    before: Counter[int] = Counter()
    for tried in chain.failures:
        index = tried.stage.index
        yield _record(trial_uid, f"{chain.trial.name}-stage{index}-attempt{before[index]}", chain, tried)
        before[index] += 1


def failure_line(tried: Attempt) -> str:
    """One line: what failed, why, and what was done about it."""
    return f"stage {tried.stage.index} {tried.manifest.verdict}: {tried.manifest.reason}; {tried.then}"


def _record(trial_uid: str, name: str, chain: Chain, tried: Attempt) -> RunRecord:
    manifest, spec = tried.manifest, tried.stage.spec
    ended = round(manifest.committed_at * 1000)
    return RunRecord(
        uid=digest([trial_uid, tried.stage.key]),
        name=name,
        status="FAILED",
        started=ended - round(1000 * _seconds(tried)),
        ended=ended,
        params={
            "stage": str(tried.stage.index),
            "seed": str(spec.seed),
            "removed_from": str(spec.removed_from),
            "removed_to": str(spec.removed_to),
            "steps": str(tried.steps),
        },
        tags={
            "stepwise.level": "attempt",
            "stepwise.job": chain.trial.job.name,
            "stepwise.trial": chain.trial.name,
            "stepwise.verdict": manifest.verdict,
            "stepwise.reason": manifest.reason,
            "stepwise.answer": tried.then,
            "mlflow.note.content": markdown(failure_line(tried)),
        },
        values=tuple(_values(tried, chain.steps_before(tried), ended)),
    )


def _values(tried: Attempt, before: int, ended: int) -> Iterator[Value]:
    """What was measured of an attempt that began ``before`` so many steps. Nothing decodes a model that failed."""
    metrics, end = tried.manifest.metrics, before + tried.steps
    yield Value("cost/seconds", _seconds(tried), ended, end)
    for block in metrics.blocks[-1:]:
        yield Value("attempt/spot_check", block.probe_exact_match, ended, end)
    for loss in metrics.train_loss:
        yield Value("train/loss", loss.loss, ended, before + loss.step - tried.stage.spec.first_step)


def _seconds(tried: Attempt) -> float:
    return tried.manifest.metrics.train_seconds + tried.manifest.metrics.evaluate_seconds
