"""Refuses to go on, unnoticed, with work that was begun with other fields, data, libraries or another ``method/``.

Nothing would be mixed up: other fields make other stages, and every manifest says what it was trained with. But the
figures alone should not be what tells a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InputError, Problem
from orchestrator.files import replace_file
from orchestrator.identity import field_diff
from orchestrator.method.stage import Record
from orchestrator.plan import Content, Plan
from orchestrator.store import StageStore, job_folder, number_versions, read_record, saved_job, saved_plan
from orchestrator.trials.running import RunningJob


class Drift(Record):
    """Differences that were accepted, and when."""

    accepted_at: float
    """The seconds since the epoch."""
    lines: tuple[str, ...]
    """The differences, one a line."""


_RECORD = TypeAdapter(tuple[Drift, ...])


def refuse_drift(running: RunningJob, *, accept: bool, joins: bool = False) -> None:
    """Raise ``InputError`` with every difference, unless it was accepted; what is accepted is recorded.

    ``joins``: the plan adds to work that is finished, as more seeds or a fork do, and is compared with all of it.
    """
    plan, store = running.plan, running.store
    found = (*_other_work(running), *_other_content(plan, store), *_other_circumstances(running, joins))
    file = job_folder(store.root, plan.job.name, "drift.json")
    known = _read(file, store)
    accepted = {line for drift in known for line in drift.lines}
    new = tuple(line for line in dict.fromkeys(found) if line not in accepted)
    if not new:
        return
    if not accept:
        begun = "adds to what was something else" if joins else "was begun as something else"
        fix = "put it back; or give another name; or accept and record it with --accept-drift"
        raise InputError(Problem("RUN005", plan.job.name, f"{begun}: {'; '.join(new)}", fix))
    replace_file(file, _RECORD.dump_json((*known, Drift(accepted_at=time.time(), lines=new)), indent=1).decode())


def refuse_other_job(plan: Plan, store: StageStore) -> None:
    """Raise ``InputError`` if a job of this name ran with other stages: its results are not this plan's."""
    if lines := other_fields(plan, store):
        found = f"is a job here that ran otherwise: {'; '.join(lines)}"
        raise InputError(Problem("RUN008", plan.job.name, found, "name that job, or give its fields, or run this"))


def refuse_other_origin(plan: Plan) -> None:
    """Raise ``InputError`` if a fork's data or model are no longer those of the chain it left."""
    now, stage = Content.of(plan.job).document(plan.job), plan.trials[0].stages[-1]
    if lines := [line for key in now for line in field_diff(stage.identity[key], now[key], key)]:
        found = f"left a chain that was made of something else: {'; '.join(lines)}"
        raise InputError(Problem("RUN005", plan.job.name, found, "put it back, or fork again"))


def other_fields(plan: Plan, store: StageStore) -> tuple[str, ...]:
    """Return how the job of this name that ran before differs, a field a line; nothing if all its trials are here."""
    before = saved_job(plan.job.name, store)
    if before is None or {chain[-1] for chain in before.chains} <= {trial.stages[-1].key for trial in plan.trials}:
        return ()
    return tuple(field_diff(before.job.model_dump(mode="json"), plan.job.model_dump(mode="json")))


def _other_work(running: RunningJob) -> Iterator[str]:
    """Yield the fields in which the job differs from its last run, if a trial of that run is left half-way."""
    plan, store = running.plan, running.store
    before = saved_plan(plan.job.name, store)
    if before is None:
        return
    ends = {trial.stages[-1].key for trial in plan.trials}
    left = RunningJob(before, store, running.chains).open_chains
    if any(chain.attempts and chain.trial.stages[-1].key not in ends for chain in left):
        yield from field_diff(before.job.model_dump(mode="json"), plan.job.model_dump(mode="json"))


def _other_content(plan: Plan, store: StageStore) -> Iterator[str]:
    """Yield the examples or the local model whose files were replaced, if a stage was made of the old ones.

    Also for finished trials: a run would make every stage again. What was begun can only be told by the keys it had.
    """
    before, job = saved_job(plan.job.name, store), plan.job
    if before is None or (before.job.task, before.job.model) != (job.task, job.model):
        return
    if any(store.read(keys[0]) for keys in before.chains):
        yield from field_diff(before.made_of, plan.content.document(job) if plan.content else {})


def _other_circumstances(running: RunningJob, joins: bool) -> Iterator[str]:
    """Yield the circumstances of an unfinished trial's last stage that are others here.

    A job that never ran on this store has nothing half-way: stages that it shares with others were finished by them.
    """
    if not joins and saved_job(running.plan.job.name, running.store) is None:
        return
    for chain in running.chains if joins else running.open_chains:
        if not chain.standing:
            continue
        last = chain.standing[-1]
        trained_with = last.manifest.versions
        for name, here in number_versions().items():
            # peft changes nothing in a job without LoRA
            if name == "peft" and not getattr(chain.trial.job.model, "lora_rank", None):
                continue
            if trained_with.get(name, here) != here:
                yield f"{name}: {trained_with[name]} -> {here}"
        if chain.next:
            for field in ("task", "model"):
                yield from field_diff(last.stage.identity[field], chain.next.identity[field], field)


def _read(file: Path, store: StageStore) -> tuple[Drift, ...]:
    """Return the differences that were accepted before. A record that cannot be read accepted none."""
    try:
        return _RECORD.validate_json(read_record(store.root, file))
    except (OSError, ValidationError):
        return ()
