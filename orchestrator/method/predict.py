"""Asking a trained model: greedy decoding of single questions, as text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.errors import InputError, Problem
from orchestrator.method.decoding import greedy
from orchestrator.method.encoding import prompt_ids, written_mark, written_text
from orchestrator.method.models.hub import positions_of

MAX_NEW_TOKENS = 800
"""The most tokens that an answer may take, as in the released script."""


@dataclass(frozen=True)
class Prediction:
    """The text that a model wrote after a question."""

    question: str
    written: str
    """The whole text, without the separators."""
    answer: str | None
    """The text after ``####``; None if the model did not write that mark."""
    tokens: int
    """The number of tokens written, separators included."""


@torch.inference_mode()
def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, position_shift: int = 0
) -> Prediction:
    """Decode one question greedily, up to the second separator.

    ``position_shift``: positions that the removed tokens took, for a model trained with ``keep_position``; the
    separator after the question and all that follows move by as many.
    """
    ids = prompt_ids(question, tokenizer)
    positions = torch.arange(len(ids))
    positions[-1] += position_shift
    limit = min(MAX_NEW_TOKENS, positions_of(model.config) - int(positions[-1]) - 1)
    if limit < 1:
        found = f"takes {len(ids)} tokens, the model has {positions_of(model.config)} positions"
        raise InputError(Problem("PRE002", repr(question), found, "ask a shorter question"))
    [output] = greedy(
        model.eval(),
        torch.tensor([ids], device=model.device),
        positions[None].to(model.device),
        tokenizer.eos_token_id,
        [limit],
    )
    written, mark = written_text(output, tokenizer), written_mark(tokenizer)
    answer = written.partition(mark)[2].strip() if mark in written else None
    return Prediction(question, written, answer, len(output))
