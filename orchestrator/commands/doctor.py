"""Looks at a job's data before a run does: tokens, lengths, what each stage removes, leaks between splits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unicodedata import combining, normalize

import numpy as np
from numpy.typing import NDArray
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase

from orchestrator.config import ExampleSource, Job
from orchestrator.errors import FORBIDDEN
from orchestrator.labels import count
from orchestrator.method.encoding import ANSWER_MARK, added_before, written_mark, written_text
from orchestrator.method.stage import StageSpec
from orchestrator.method.stepwise import stepwise_stages
from orchestrator.method.tokens import TokenTable
from orchestrator.plan import Content, Trial, build_plan
from orchestrator.plan.grid import symbols
from orchestrator.report.terminal.diagnosis import (
    PERCENTILES,
    Diagnosis,
    Leak,
    Lengths,
    Lost,
    Shown,
    SplitSize,
    StageRemoval,
)
from orchestrator.store import StageStore
from orchestrator.tasks import Split, Task
from orchestrator.tasks.text import TextExamples, number
from orchestrator.trials.data import JobData, prepare_data

LONG_TAIL = 1.5
"""A longest CoT so many times the 99th percentile is worth a remark."""


def diagnose(job: Job, store: StageStore) -> Diagnosis:
    """Tokenize the job's data, as a run would and for it. Raises ``InputError`` for what no run could use."""
    plan = build_plan(job)  # what needs no tokenizer is refused before anything is written
    data = _data(job, store)
    plan = build_plan(job, data.total_tokens, content=plan.content)
    first = next((trials[0] for settings, trials in plan.groups.items() if settings), None)
    own = first.job if first else job
    tables: dict[Split, TokenTable] = {"train": data.train, "validation": data.validation}
    questions = {split: _questions(data.task, split) for split in _splits(job)}
    return Diagnosis(
        job=job.name,
        total_tokens=data.total_tokens,
        splits=tuple(
            SplitSize(split=split, examples=q.examples, without_cot=q.without_cot, repeated=q.examples - len(q.rows))
            for split, q in questions.items()
        ),
        lengths=tuple(lengths for split, table in tables.items() for lengths in _lengths(split, table)),
        shown=tuple(_shown(data, row, _specs(own, data)) for row in _typical(data.train)),
        unseen=_unseen(data),
        lost=tuple(lost for split, table in tables.items() for lost in _lost(split, table, data)),
        leaks=tuple(_leaks(questions, data.task)),
        remarks=(*_searched(job, first), *_remarks(own, data), *_not_numbers(data.task)),
    )


def _data(job: Job, store: StageStore) -> JobData:
    """The job's tokens, in the store; beside one that is only to be read, as long as they are mapped."""
    try:
        return prepare_data(job, store)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
    with TemporaryDirectory() as aside:
        return prepare_data(job, StageStore(Path(aside)))


def _from_here(place: str) -> str:
    """A place as a person would type it in this folder."""
    return place.removeprefix(f"{Path.cwd()}/")


def _splits(job: Job) -> tuple[Split, ...]:
    tested = not isinstance(job.task, ExampleSource) or job.task.test is not None
    return ("train", "validation", "test") if tested else ("train", "validation")


class _Questions(NamedTuple):
    """The questions of a split, each with the row where it is first asked."""

    examples: int
    without_cot: int
    rows: dict[str, int]


def _questions(task: Task, split: Split) -> _Questions:
    rows: dict[str, int] = {}
    examples = without_cot = 0
    for example in task.examples(split):
        rows.setdefault(" ".join(example.question.split()), examples)
        examples += 1
        without_cot += not example.cot
    return _Questions(examples, without_cot, rows)


def _lost(split: Split, table: TokenTable, data: JobData) -> Iterator[Lost]:
    """Return what the tokenizer does not keep of a split's examples, by part and kind. One of whole words keeps all."""
    backend = data.tokenizer.backend_tokenizer
    if isinstance(backend.model, WordLevel) and backend.normalizer is None:
        return
    tokenizer, task = data.tokenizer, data.task
    before, mark = len(added_before(tokenizer)), written_mark(tokenizer)
    found: dict[tuple[str, str], tuple[int, int, str, str]] = {}
    for row, example in enumerate(task.examples(split)):
        ids = table.tokens[table.offsets[row] : table.offsets[row + 1]].tolist()
        start, end = int(table.cot_start[row]), int(table.cot_end[row])
        whole = written_text(ids[before:], tokenizer).replace(mark, ANSWER_MARK)
        if whole.split() == f"{example.question} {example.cot} {ANSWER_MARK} {example.answer}".split():
            continue
        parts = {
            "question": (example.question, ids[before : start - 1]),
            "CoT": (example.cot, ids[start:end]),
            "answer": (f"{ANSWER_MARK} {example.answer}", ids[end + 1 :]),
        }
        for part, (stood, tokens) in parts.items():
            kept = written_text(tokens, tokenizer)
            if part == "answer":
                kept = kept.replace(mark, ANSWER_MARK, 1)
            if stood.split() != kept.split():
                key = part, _kind_of_loss(stood, kept)
                times, first, *shown = found.get(key, (0, row, *_difference(stood, kept)))
                found[key] = (times + 1, first, *shown)
    for (part, what), (times, first, stood, kept) in found.items():
        place = _from_here(task.place(split, first))
        yield Lost(split=split, part=part, what=what, examples=times, first=place, stood=stood, kept=kept)


def _kind_of_loss(stood: str, kept: str) -> str:
    """The first of a few forms in which the two are the same."""
    a, b = ("".join(text.split()) for text in (stood, kept))
    if a == b:
        return "blanks"
    a, b = normalize("NFKC", a), normalize("NFKC", b)
    if a == b:
        return "Unicode form"
    if a.casefold() == b.casefold():
        return "capitals"
    a, b = ("".join(c for c in normalize("NFD", text.casefold()) if not combining(c)) for text in (a, b))
    return "accents" if a == b else "characters"


def _difference(stood: str, kept: str) -> tuple[str, str]:
    """Both texts from a little before where they part; in escapes what looks the same."""
    begin = next((i for i, (a, b) in enumerate(zip(stood, kept, strict=False)) if a != b), min(len(stood), len(kept)))
    begin = stood.rfind(" ", 0, begin) + 1
    shown = ascii if normalize("NFC", stood) == normalize("NFC", kept) else repr
    return shown(stood[begin : begin + 24]), shown(kept[begin : begin + 24])


def _not_numbers(task: Task) -> Iterator[str]:
    """Count the answers that are no number, for a task whose answers are numbers."""
    if not isinstance(task, TextExamples) or not task.numbers:
        return
    for split in ("train", "validation"):
        odd = [row for row, example in enumerate(task.examples(split)) if number(example.answer) is None]
        if odd:
            yield (
                f"{count(len(odd), 'answer')} of {split} {'is' if len(odd) == 1 else 'are'} no number, "
                f"the first at {_from_here(task.place(split, odd[0]))}: right if the same is written"
            )


def _leaks(questions: dict[Split, _Questions], task: Task) -> Iterator[Leak]:
    for other, split in combinations(questions, 2):
        common = questions[split].rows.keys() & questions[other].rows.keys()
        if common:
            first = min(questions[split].rows[question] for question in common)
            yield Leak(split=split, other=other, questions=len(common), first=_from_here(task.place(split, first)))


def _cot_lengths(table: TokenTable) -> NDArray[np.int32]:
    return table.cot_end - table.cot_start


def _lengths(split: Split, table: TokenTable) -> Iterator[Lengths]:
    parts = {
        "question": table.cot_start - 1,
        "CoT": _cot_lengths(table),
        "answer": table.lengths - table.cot_end - 2,
        "whole": table.lengths,
    }
    for part, tokens in parts.items():
        at = np.percentile(tokens, PERCENTILES, method="higher")
        yield Lengths(split=split, part=part, tokens=tuple(map(int, at)))


def _typical(table: TokenTable) -> list[int]:
    """The rows with the shortest CoT, one in the middle and the longest."""
    order = np.argsort(_cot_lengths(table), kind="stable")
    return [int(order[i]) for i in sorted({0, len(order) // 2, len(order) - 1})]


def _specs(job: Job, data: JobData) -> tuple[StageSpec, ...]:
    """The stepwise chain of the job's own schedule."""
    return stepwise_stages(job.schedule, job.seeds[0], data.total_tokens, Content.of(job).epoch_steps(job))


def _shown(data: JobData, row: int, specs: tuple[StageSpec, ...]) -> Shown:
    table = data.train
    begin, end = table.offsets[row], table.offsets[row + 1]
    tokens = _texts(table.tokens[begin:end], data.tokenizer)
    start, stop = int(table.cot_start[row]), int(table.cot_end[row])
    return Shown(
        place=_from_here(data.task.place("train", row)),
        question=tokens[: start - 1],
        cot=tokens[start:stop],
        answer=tokens[stop + 1 : -1],
        removed=tuple(_removed(tokens[start:stop], specs)),
    )


def _removed(cot: tuple[str, ...], specs: tuple[StageSpec, ...]) -> Iterator[StageRemoval]:
    """Return what goes stage by stage, without smoothing: at most the whole CoT."""
    for index, spec in enumerate(specs):
        first, last = min(spec.removed_from, len(cot)), min(spec.removed_to, len(cot))
        gone = cot[first:last] if spec.removal_side == "left" else cot[len(cot) - last : len(cot) - first]
        if gone:
            yield StageRemoval(stage=index, tokens=gone)


def _texts(tokens: NDArray[np.int32], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return tuple(tokenizer.decode([int(token)]) for token in tokens)


def _unseen(data: JobData) -> tuple[str, ...]:
    unseen = np.setdiff1d(data.validation.tokens, data.train.tokens)
    return _texts(unseen, data.tokenizer)


def _searched(job: Job, first: Trial | None) -> Iterator[str]:
    """Say which configuration of a search is shown."""
    if job.search:
        yield "stages are those of " + (
            f"the search's first configuration, {symbols(first.settings)}"
            if first
            else "the job as it is written, without what the search sets"
        )


def _remarks(job: Job, data: JobData) -> Iterator[str]:
    cots = _cot_lengths(data.train)
    limit, beyond = job.training.max_train_tokens, job.schedule.remove_all_beyond
    if limit is not None:
        left_out = int((data.train.lengths > limit).sum())
        yield (
            f"training.max_train_tokens={limit} leaves out {count(left_out, 'training example')} "
            f"({left_out / len(cots):.1%}) until enough of their CoT is gone"
        )
    if beyond is not None:
        longer = int((cots > beyond).sum())
        yield (
            f"schedule.remove_all_beyond={beyond} ends {count(longer, 'CoT')} of training "
            f"({longer / len(cots):.1%}) before its last token's turn"
        )
    most = int(np.percentile(cots, 99, method="higher"))
    if beyond is None and data.total_tokens > LONG_TAIL * most:
        yield (
            f"1 % of CoTs are longer than {most} tokens and take the stages from there to {data.total_tokens}; "
            f"schedule.remove_all_beyond={most} would remove them at once"
        )
