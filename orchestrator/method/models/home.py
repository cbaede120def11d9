"""A model as a plain Hugging Face folder that a text-generation pipeline answers from."""

from __future__ import annotations

import math
from pathlib import Path

from tokenizers import decoders
from tokenizers.models import WordLevel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.method.encoding import prompt_text
from orchestrator.method.evaluate import OVERTIME
from orchestrator.method.models.hub import positions_of
from orchestrator.method.models.model import save_weights


def pipeline_prompt(question: str, separator: str, *, cot_left: bool) -> str:
    """Return the prompt for a pipeline. A model with no CoT left to write begins its answer after two separators."""
    return prompt_text(question, separator) + ("" if cot_left else separator)


def save_home(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    generated_tokens: float,
    cot_left: bool,
    prompt_tokens: int,
) -> None:
    """Weights, tokenizer and a greedy generation config.

    A pipeline stops at the first end token, and a CoT ends with one: with a CoT left to write the model instead
    stops after as many tokens as its answers take (``generated_tokens`` on average; twice that if they differ).
    """
    if isinstance(tokenizer.backend_tokenizer.model, WordLevel):
        tokenizer.backend_tokenizer.decoder = decoders.WordPiece(prefix="\0", cleanup=False)  # symbols stand apart
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    even = float(generated_tokens).is_integer()
    most = int(generated_tokens) if even else 2 * math.ceil(generated_tokens) + OVERTIME
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(most, positions_of(model.config) - prompt_tokens)),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None if cot_left else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_weights(model, tokenizer, folder)
