"""Projects a plan and its committed stages onto the runs that should stand in MLflow. All functions are pure.

A value is part of a record only once it can no longer change: MLflow keeps a second value of a step beside the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from orchestrator.config import Job, Section
from orchestrator.identity import canonical_json, digest, non_default
from orchestrator.labels import COLOURS
from orchestrator.method.stage import LossPoint
from orchestrator.plan import Plan, Trial, grid
from orchestrator.results.cost import Cost
from orchestrator.results.findings import Findings
from orchestrator.results.frontier import FrontierPoint
from orchestrator.results.outcome import outcome_of
from orchestrator.results.ranking import area, best_line
from orchestrator.shown import names_only
from orchestrator.store import Pruned
from orchestrator.tracking.attempts import attempt_records, failure_line
from orchestrator.tracking.records import RunRecord, Status, Value
from orchestrator.trials.chain import Chain

Losses = Mapping[str, Sequence[LossPoint]]
"""The training losses by stage key."""
OUTCOME = "stepwise.outcome"
"""The tag of a job's run that says whether it internalized."""


def trial_records(
    plan: Plan,
    chains: Sequence[Chain],
    points: Sequence[FrontierPoint],
    losses: Losses,
    pruned: Mapping[str, Pruned],
) -> list[RunRecord]:
    """Return a run for every trial with a committed stage, in plan order. ``pruned`` is by trial name."""
    by_trial = {name: list(group) for name, group in groupby(points, lambda point: point.trial)}
    # A speed is the best of all stages that do the same work: it stands once the last of them is measured.
    speed_known = not plan.to_propose and all(
        trial.name in pruned or _trial_status(trial, by_trial.get(trial.name, [])) != "RUNNING" for trial in plan.trials
    )
    records = [
        _trial_record(chain, by_trial[chain.trial.name], losses, speed_known)
        for chain in chains
        if chain.trial.name in by_trial
    ]
    for index, record in enumerate(records):
        if record.name in pruned:
            tags = record.tags | {"stepwise.verdict": "pruned", "stepwise.pruned": pruned[record.name].reason}
            records[index] = replace(record, status="KILLED", tags=tags)
    return records


def job_record(findings: Findings, trials: Sequence[RunRecord]) -> RunRecord:
    """Return the job's run, which stands beside those of its trials.

    It says whether they internalized, the best exact match of all at every number of removed tokens, what all cost,
    and a search's winner. Its status is FAILED if that of one of its ``trials`` is, else KILLED if a trial did not
    come to its end.
    """
    plan, points, ranked, outcome = findings.plan, findings.points, findings.ranked, outcome_of(findings)
    best: dict[int, FrontierPoint] = {}
    for point in points:
        held = best.get(point.removed_tokens)
        if point.passed and (held is None or point.exact_match > held.exact_match):
            best[point.removed_tokens] = point
    tags = {"stepwise.level": "job", "stepwise.job": plan.job.name}
    values = [standing.value for standing in ranked[:1] if standing.value is not None]
    ended = max(map(_timestamp, points))
    objective = [Value("search/objective", value, ended, 0) for value in values]
    envelope = (value for removed in sorted(best) for value in _position(best[removed]))
    return RunRecord(
        uid=digest(tags),
        name=plan.job.name,
        status=_job_status(plan, trials),
        started=min(map(_started, points)),
        ended=ended,
        params={},
        tags=tags
        | ({"stepwise.best": best_line(plan, ranked)} if ranked else {})
        | ({OUTCOME: outcome.line} if outcome else {}),
        values=(*envelope, *objective, *_cost(plan.job, findings.cost, ended)),
    )


def _cost(job: Job, cost: Cost, time: int) -> Iterator[Value]:
    """Yield steps and seconds as in the report, and GPU-hours: the seconds times the GPUs of a trial."""
    gpus = job.resources.workers * job.resources.gpus_per_worker
    spent = {
        "steps": cost.total.steps,
        "seconds": cost.total.seconds,
        "gpu_hours": cost.total.seconds * gpus / 3600,
        "steps_saved_by_sharing": cost.shared.steps,
        "steps_lost_to_restarts": cost.lost.steps,
    }
    yield from (Value(f"cost/{key}", value, time, 0) for key, value in spent.items())


def _job_status(plan: Plan, trials: Sequence[RunRecord]) -> Status:
    pruned = sum("stepwise.pruned" in record.tags for record in trials)
    if any(record.status == "FAILED" for record in trials):
        return "FAILED"
    ended = pruned + sum(record.status == "FINISHED" for record in trials)
    return "FINISHED" if ended == len(plan.trials) and not plan.to_propose else "KILLED"


def _trial_record(chain: Chain, points: list[FrontierPoint], losses: Losses, speed_known: bool) -> RunRecord:
    trial = chain.trial
    params = _params(trial.job, trial)
    status = _trial_status(trial, points)
    settled = list(_settled(trial, points))
    values = [value for point in points for value in _progress(point, losses[point.stage_key])]
    values += [value for point in settled for value in _frontier(point, speed_known)]
    if status == "FINISHED":
        values += _scores(trial, settled)
    if status != "RUNNING" and trial.method != "stepwise":
        values += _flat(settled[-1:])
    if status != "RUNNING" and trial.method == "stepwise":
        values.append(Value("score/restarts", chain.restarts, _timestamp(points[-1]), 0))
    uid = digest([trial.name, trial.stages[-1].key, params])
    return RunRecord(
        uid=uid,
        name=trial.name,
        status=status,
        started=_started(points[0]),
        ended=_timestamp(points[-1]),
        params=params,
        tags={
            "stepwise.level": "trial",
            "stepwise.job": trial.job.name,
            "stepwise.method": trial.method,
            "stepwise.seed": str(trial.seed),
            "stepwise.verdict": points[-1].verdict,
            "mlflow.runColor": COLOURS[trial.method],
            "stepwise.lineage": " ".join(point.stage_key[:8] for point in points),
            "stepwise.restarts": str(chain.restarts),
            **{f"stepwise.restart.{number}": failure_line(tried) for number, tried in enumerate(chain.failures, 1)},
        },
        values=tuple(values),
        models=tuple(settled),
        attempts=tuple(attempt_records(uid, chain)),
    )


def _trial_status(trial: Trial, points: Sequence[FrontierPoint]) -> Status:
    if not all(point.passed for point in points):
        return "FAILED"
    return "FINISHED" if len(points) == sum(stage.spec.answers for stage in trial.stages) else "RUNNING"


def _params(job: Job, trial: Trial) -> dict[str, str]:
    """Return what a run is found and grouped by. Baselines remove nothing and have no params of removal."""
    params = {
        "method": trial.method,
        "seed": str(trial.seed),
        "task": _label(job.task),
        "model": _label(job.model),
        "learning_rate": f"{job.training.learning_rate:g}",
        "batch_size": str(job.training.batch_size),
        "total_tokens": str(trial.stages[-1].spec.total_tokens),
        "steps": str(trial.steps),
    }
    if trial.method == "stepwise":
        params |= {
            "schedule": job.schedule.type,
            "tokens_per_stage": f"{job.schedule.tokens_per_stage:g}",
            "smoothing_lambda": f"{job.schedule.smoothing_lambda:g}",
            "removal_side": job.schedule.removal_side,
        }
    searched = {grid.key_of(field): grid.text(value) for field, value in trial.settings}
    return params | {key: value for key, value in searched.items() if key not in ("type", *params)}


def _label(section: Section) -> str:
    """Return a section in short, its type and what is not default: ``multiplication digits=[4,4]``."""
    fields = names_only(non_default(section))
    kind = fields.pop("type")
    return " ".join([kind, *(f"{key}={canonical_json(value)}" for key, value in fields.items())])


def _settled(trial: Trial, points: list[FrontierPoint]) -> Iterator[FrontierPoint]:
    """Yield the last good point of every number of removed tokens, once no later stage of the trial can replace it."""
    committed = {point.stage: point for point in points}
    over = _trial_status(trial, points) != "RUNNING"
    for _, stages in groupby(trial.stages, lambda stage: stage.spec.removed_to):
        indices = [stage.index for stage in stages]
        good = [committed[i] for i in indices if i in committed and committed[i].passed]
        if good and (over or indices[-1] in committed):
            yield good[-1]


def _progress(point: FrontierPoint, losses: Sequence[LossPoint]) -> Iterator[Value]:
    time = _timestamp(point)
    if point.passed:  # a failed model is not measured
        yield Value("stage/exact_match", point.exact_match, time, point.step)
    yield Value("stage/removed_tokens", point.removed_tokens, time, point.step)
    for loss in losses:
        yield Value("train/loss", loss.loss, time, loss.step)


def _position(point: FrontierPoint) -> Iterator[Value]:
    time, removed = _timestamp(point), point.removed_tokens
    yield Value("frontier/accuracy", point.exact_match, time, removed)
    yield Value("frontier/internalized_tokens", removed, time, removed)
    yield Value("frontier/internalized_fraction", removed / (point.total_tokens or 1), time, removed)


def _frontier(point: FrontierPoint, speed_known: bool) -> Iterator[Value]:
    time, removed = _timestamp(point), point.removed_tokens
    yield from _position(point)
    yield Value("frontier/generated_tokens", point.generated_tokens, time, removed)
    if point.restarts:
        yield Value("frontier/restarts", point.restarts, time, removed)
    if speed_known:
        yield Value("frontier/examples_per_second", point.examples_per_second, time, removed)
    if speed_known and point.speedup is not None:
        yield Value("frontier/speedup", point.speedup, time, removed)


def _flat(last: Sequence[FrontierPoint]) -> Iterator[Value]:
    """Yield a baseline as a flat line to compare with: its end, at no removed token and at all of them."""
    for point in last:
        for removed in (0, point.total_tokens):
            yield Value("baseline/accuracy", point.exact_match, _timestamp(point), removed)
            yield Value("frontier/internalized_tokens", removed, _timestamp(point), removed)


def _scores(trial: Trial, settled: list[FrontierPoint]) -> Iterator[Value]:
    """Yield one number a run, at step 0. Tables show a metric at its largest step, which is the worst model."""
    last = settled[-1]
    if last.removed_tokens == last.total_tokens:
        yield Value("score/exact_match_all_removed", last.exact_match, _timestamp(last), 0)
    if trial.method == "stepwise" and len(settled) > 1:
        last_at = {point.removed_tokens: point.exact_match for point in settled}
        yield Value("score/auc", area(last_at, last.total_tokens), _timestamp(last), 0)


def _timestamp(point: FrontierPoint) -> int:
    return round(point.committed_at * 1000)


def _started(point: FrontierPoint) -> int:
    return round((point.committed_at - point.seconds) * 1000)
