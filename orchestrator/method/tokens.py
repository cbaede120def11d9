"""Examples as tokens: made once, kept as an Arrow file, read through a memory map."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from orchestrator.errors import InputError, Problem, StoreError
from orchestrator.files import replacing, sha256
from orchestrator.method.encoding import (
    added_before,
    encode,
    extract_answer,
    separators,
    training_text,
    unknown_words,
    written_mark,
    written_text,
)
from orchestrator.method.removal import Batch
from orchestrator.tasks import Example, Split, Task

CHUNK = 20_000


@dataclass(frozen=True)
class TokenTable:
    """The examples of a split: one flat array of tokens and where each example and its CoT lie."""

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int32]
    cot_start: NDArray[np.int32]
    cot_end: NDArray[np.int32]
    answers: list[str] | None = None
    """What the tokenizer makes of every answer, as text; for the splits that are evaluated."""

    def __len__(self) -> int:
        return len(self.cot_start)

    @property
    def total_tokens(self) -> int:
        """Tokens of the longest CoT: the most that can be removed."""
        return int((self.cot_end - self.cot_start).max())

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of every example."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self.lengths.max())

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """The given examples, right-padded with zeros."""
        begin, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        column = np.arange(lengths.max())
        inside = column < lengths[:, None]
        tokens = np.where(inside, self.tokens[np.where(inside, begin[:, None] + column, 0)], 0)
        return Batch(*map(_tensor, (tokens, lengths, self.cot_start[rows], self.cot_end[rows])))


def _tensor(array: NDArray[np.int32]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))


def token_table(task: Task, split: Split, tokenizer: PreTrainedTokenizerBase, path: Path) -> TokenTable:
    """The tokens of a split, from ``path`` if it exists, else made and put there, each file in one rename: others
    may make or read the same at the same time.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as written, replacing(_digest_file(path)) as sealed:  # the hash takes its place first
                _write(task, split, tokenizer, written)
                sealed.write_text(sha256(written))
        finally:
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    table = _read(path)
    return table if split == "train" else replace(table, answers=_answers(table, tokenizer))


def _answers(table: TokenTable, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A model is judged by what it was taught: a tokenizer may not keep capitals, or one of two ways to write é."""
    mark = written_mark(tokenizer)
    ends = zip(table.cot_end + 1, table.offsets[1:], strict=True)
    begins = table.offsets[:-1]
    return [
        extract_answer(written_text(table.tokens[begin + first : end].tolist(), tokenizer), mark)
        for begin, (first, end) in zip(begins, ends, strict=True)
    ]


def _write(task: Task, split: Split, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    examples = iter(task.examples(split))
    rows, starts, ends = [], [], []
    before = len(added_before(tokenizer))
    while chunk := list(islice(examples, CHUNK)):
        texts = [training_text(example, tokenizer.eos_token) for example in chunk]
        for example, ids in zip(chunk, encode(texts, tokenizer), strict=True):
            first, second = _separators(example, ids, tokenizer, before, lambda: task.place(split, len(rows)))
            rows.append(np.array(ids, np.int32))
            starts.append(first + 1)
            ends.append(second)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    table = pa.table(
        {
            "input_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(rows))),
            "cot_start": pa.array(starts, pa.int32()),
            "cot_end": pa.array(ends, pa.int32()),
        }
    )
    with path.open("wb") as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        file.flush()
        os.fsync(file.fileno())


def _separators(
    example: Example, ids: list[int], tokenizer: PreTrainedTokenizerBase, before: int, place: Callable[[], str]
) -> tuple[int, int]:
    text = f"{example.question} {example.cot} #### {example.answer}"
    if unknown := unknown_words(text, ids, tokenizer):
        found = f"the tokenizer does not know {', '.join(map(repr, unknown))}"
        raise InputError(Problem("DAT013", place(), found, "choose a model that knows the symbols"))
    positions = separators(ids, tokenizer.eos_token_id, before)
    if len(positions) != 3:
        found = f"the separator {tokenizer.eos_token!r} occurs {len(positions)} times in the tokens, 3 expected"
        fix = 'the text may not contain it; model.separator = "added" gives a pretrained model one of its own'
        raise InputError(Problem("DAT012", place(), found, fix))
    return positions[0], positions[1]


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _read(path: Path) -> TokenTable:
    digest = _digest_file(path)
    if not digest.exists() or digest.read_text() != sha256(path):
        again = f"delete {path.parent}, the next run makes it again"
        raise StoreError(Problem("DAT020", str(path), "is not what was written here", again))
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        table = stream.read_all()
    ids = table.column("input_ids").chunk(0)
    return TokenTable(
        tokens=ids.values.to_numpy(),
        offsets=ids.offsets.to_numpy(),
        cot_start=table.column("cot_start").to_numpy(),
        cot_end=table.column("cot_end").to_numpy(),
    )


def batch_rows(table_size: int, batch_size: int, seed: int, first_step: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """The rows of each optimizer step's batch: a new shuffle every epoch, a pure function of seed and step.

    An epoch has ceil(n / batch) steps; its last batch is filled up from the epoch's beginning.
    """
    epoch_steps = -(-table_size // batch_size)
    epoch, order = -1, np.empty(0, np.int64)
    for step in range(first_step, first_step + steps):
        if step // epoch_steps != epoch:
            epoch = step // epoch_steps
            order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(table_size)
            order = np.resize(order, epoch_steps * batch_size)
        begin = step % epoch_steps * batch_size
        yield order[begin : begin + batch_size]
