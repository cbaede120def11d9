"""What a trial tried in vain, as MLflow shows it: a run below the trial's for every attempt that failed.

Its loss is at the steps of the plan; the trial's own run has none of it, so the frontier is not disturbed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import isfinite

from orchestrator.identity import digest
from orchestrator.plan import Trial
from orchestrator.stability import Restart
from orchestrator.store import Tried
from orchestrator.tracking.records import RunRecord, Value


def attempt_records(trial_uid: str, trial: Trial, failures: Sequence[Tried]) -> Iterator[RunRecord]:
    """A run for each, in order. An attempt has a seed or a pace of its own, so its stage key is its own too."""
    before: Counter[int] = Counter()
    for tried in failures:
        stage = tried.stage
        yield _record(trial_uid, f"{trial.name}-stage{stage.index}-attempt{before[stage.index]}", trial, tried)
        before[stage.index] += 1


def setback(tried: Tried) -> str:
    """One line: what failed, why, and what was done about it."""
    return f"stage {tried.stage.index} {tried.manifest.verdict}: {tried.manifest.reason}; {_answer(tried)}"


def _answer(tried: Tried) -> str:
    answer = tried.answer
    if isinstance(answer, Restart):
        return f"restart {answer.number} from stage {answer.from_stage}: {answer.change}"
    return "gave up"


def _record(trial_uid: str, name: str, trial: Trial, tried: Tried) -> RunRecord:
    manifest, spec = tried.manifest, tried.stage.spec
    metrics, ended = manifest.metrics, round(manifest.committed_at * 1000)
    losses = [Value("train/loss", loss.loss, ended, loss.step) for loss in metrics.train_loss if isfinite(loss.loss)]
    step = spec.first_step + tried.steps
    return RunRecord(
        uid=digest([trial_uid, tried.stage.key]),
        name=name,
        status="FAILED",
        started=ended - round(1000 * (metrics.train_seconds + metrics.evaluate_seconds)),
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
            "stepwise.job": trial.job.name,
            "stepwise.trial": trial.name,
            "stepwise.verdict": manifest.verdict,
            "stepwise.reason": manifest.reason,
            "stepwise.answer": _answer(tried),
            "mlflow.note.content": setback(tried),
        },
        values=(Value("stage/exact_match", metrics.exact_match, ended, step), *losses),
    )
