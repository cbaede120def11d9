"""The findings of ``stepwise doctor`` about a job's data: as values, and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from orchestrator.labels import count
from orchestrator.method.stage import Record
from orchestrator.shown import visible
from orchestrator.tasks import Split

PERCENTILES = (50, 90, 99, 100)


class StageRemoval(Record):
    """The tokens that an example loses in a stage."""

    stage: int
    tokens: tuple[str, ...]


class Shown(Record):
    """An example as the model reads it, and the tokens that each stage removes. All are texts of single tokens."""

    place: str
    question: tuple[str, ...]
    cot: tuple[str, ...]
    answer: tuple[str, ...]
    removed: tuple[StageRemoval, ...]
    """The stages in which this example loses something."""


class Lengths(Record):
    """The tokens of one part of the examples of a split, at ``PERCENTILES``."""

    split: Split
    part: str
    tokens: tuple[int, ...]


class SplitSize(Record):
    """The number of examples of a split."""

    split: Split
    examples: int
    without_cot: int
    repeated: int
    """The questions that occurred before in the same split."""


class Leak(Record):
    """The questions of one split that are also in another."""

    split: Split
    other: Split
    questions: int
    first: str
    """The place of the first one in ``split``."""


class Lost(Record):
    """The difference between one part of a split's examples and what comes back from its tokens."""

    split: Split
    part: str
    what: str
    """``blanks``, ``Unicode form``, ``capitals``, ``accents`` or ``characters``."""
    examples: int
    first: str
    """The place of the first one."""
    stood: str
    """The text where the first one differs, as it stood."""
    kept: str
    """The same text, as it comes back."""


class Diagnosis(Record):
    """A job's data in its tokenizer's tokens."""

    job: str
    total_tokens: int
    """The tokens of the longest CoT: the schedule counts to them."""
    splits: tuple[SplitSize, ...]
    lengths: tuple[Lengths, ...]
    shown: tuple[Shown, ...]
    unseen: tuple[str, ...]
    """The tokens of validation that training never shows."""
    lost: tuple[Lost, ...]
    leaks: tuple[Leak, ...]
    remarks: tuple[str, ...]
    """The consequences of the schedule and the limits for these data."""


def diagnosis_table(diagnosis: Diagnosis) -> Group:
    """Return the diagnosis for a terminal. Blanks of tokens are shown as ``␣``."""
    return Group(_sizes(diagnosis), "", _lengths(diagnosis), *_examples(diagnosis), "", *_findings(diagnosis))


def _sizes(diagnosis: Diagnosis) -> Table:
    table = _table("split", "examples", "without CoT", "repeated questions")
    for size in diagnosis.splits:
        table.add_row(size.split, f"{size.examples:,}", f"{size.without_cot:,}", f"{size.repeated:,}")
    return table


def _lengths(diagnosis: Diagnosis) -> Table:
    table = _table("tokens of", "", *("longest" if p == 100 else f"{p} %" for p in PERCENTILES))
    table.columns[1].justify = "left"
    for row in diagnosis.lengths:
        table.add_row(row.split, row.part, *(f"{tokens:,}" for tokens in row.tokens))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return table


def _examples(diagnosis: Diagnosis) -> Iterator[Text | str]:
    for shown in diagnosis.shown:
        yield ""
        tokens = len(shown.question) + len(shown.cot) + len(shown.answer) + 3
        yield Text(f"{visible(shown.place)}: {tokens} tokens with 3 separators, {len(shown.cot)} of CoT", style="bold")
        yield f"  question  {_visible(shown.question)}"
        yield f"  CoT       {_visible(shown.cot)}"
        for removed in shown.removed:
            yield f"  stage {removed.stage:<3} removes {len(removed.tokens)}: {_visible(removed.tokens)}"
        yield f"  answer    {_visible(shown.answer)}"


def _visible(tokens: tuple[str, ...]) -> str:
    return " ".join(visible(token.replace(" ", "␣").replace("\n", "↵")) or "(nothing)" for token in tokens)


def _kept(diagnosis: Diagnosis) -> Iterator[str]:
    if not diagnosis.lost:
        yield "every question, CoT and answer comes back from its tokens as it stood, but for how wide its blanks are"
        return
    for lost in diagnosis.lost:
        where = f"{count(lost.examples, lost.part)} of {lost.split}, the first at {lost.first}"
        yield f"the tokenizer does not keep the {lost.what} of {where}: {lost.stood} comes back as {lost.kept}"
    yield "answers are judged as they come back, so nothing counts as wrong for that"


def _findings(diagnosis: Diagnosis) -> Iterator[str]:
    if all(size.without_cot == size.examples for size in diagnosis.splits):
        yield "no example has a CoT"
    else:
        yield f"the longest CoT has {count(diagnosis.total_tokens, 'token')}: what the schedule counts to"
    yield from diagnosis.remarks
    unseen = " ".join(map(repr, diagnosis.unseen[:10])) + (" ..." if len(diagnosis.unseen) > 10 else "")
    yield "unknown tokens: none; " + (
        f"validation has {count(len(diagnosis.unseen), 'token')} that training never shows: {unseen}"
        if diagnosis.unseen
        else "training shows every token of validation"
    )
    yield from _kept(diagnosis)
    for leak in diagnosis.leaks:
        asked = count(leak.questions, "question")
        yield f"leak: {asked} of {leak.split} also in {leak.other}, the first at {leak.first}"
    if not diagnosis.leaks:
        yield f"no question is in two of {', '.join(size.split for size in diagnosis.splits)}"
