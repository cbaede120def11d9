"""The failed attempts of a trial in MLflow: a run below the trial's for each.

The loss of an attempt stands at the steps that the trial had really taken, so the curves lie over each other. The
trial's own run shows no failed attempt but the one that it gave up at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestrator.identity import digest
from orchestrator.shown import markdown
from orchestrator.tracking.records import RunRecord, Value
from orchestrator.trials.chain import Attempt, Chain


def attempt_records(trial_uid: str, chain: Chain) -> Iterator[RunRecord]:
    """Yield a run for every failed attempt, in order.

    An attempt is found again by its stage key: each has a seed or a pace of its own, so the key is its own too.
    """
    before: Counter[int] = Counter()
    for attempt in chain.failures:
        manifest, stage = attempt.manifest, attempt.stage
        ended, seconds = round(manifest.committed_at * 1000), _seconds(attempt)
        yield RunRecord(
            uid=digest([trial_uid, stage.key]),
            name=f"{chain.trial.name}-stage{stage.index}-attempt{before[stage.index]}",
            status="FAILED",
            started=ended - round(1000 * seconds),
            ended=ended,
            params={
                "stage": str(stage.index),
                "seed": str(stage.spec.seed),
                "removed_from": str(stage.spec.removed_from),
                "removed_to": str(stage.spec.removed_to),
                "steps": str(attempt.steps),
            },
            tags={
                "stepwise.level": "attempt",
                "stepwise.job": chain.trial.job.name,
                "stepwise.trial": chain.trial.name,
                "stepwise.verdict": manifest.verdict,
                "stepwise.reason": manifest.reason,
                "stepwise.answer": attempt.then,
                "mlflow.note.content": markdown(failure_line(attempt)),
            },
            values=tuple(_values(attempt, chain.steps_before(attempt), ended)),
        )
        before[stage.index] += 1


def failure_line(attempt: Attempt) -> str:
    """Return one line: what failed, why, and what was done about it."""
    return f"stage {attempt.stage.index} {attempt.manifest.verdict}: {attempt.manifest.reason}; {attempt.then}"


def _values(attempt: Attempt, before: int, ended: int) -> Iterator[Value]:
    """Yield what was measured of an attempt that began after ``before`` steps. A failed model is never decoded."""
    metrics, end = attempt.manifest.metrics, before + attempt.steps
    yield Value("cost/seconds", _seconds(attempt), ended, end)
    for block in metrics.blocks[-1:]:
        yield Value("attempt/spot_check", block.probe_exact_match, ended, end)
    for loss in metrics.train_loss:
        yield Value("train/loss", loss.loss, ended, before + loss.step - attempt.stage.spec.first_step)


def _seconds(attempt: Attempt) -> float:
    return attempt.manifest.metrics.train_seconds + attempt.manifest.metrics.evaluate_seconds
