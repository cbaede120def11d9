"""What a model says without being loaded: its tokenizer and its length. Light to import, unlike the model classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from orchestrator.config import PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem, first_line

ModelConfig = ScratchModel | PretrainedModel

SEPARATOR = "<|separator|>"
"""The token that ``model.separator = "added"`` adds."""


def load_tokenizer(config: ModelConfig, symbols: tuple[str, ...]) -> PreTrainedTokenizerBase:
    """One token a symbol for a model from scratch, else the pretrained model's own tokenizer."""
    if isinstance(config, PretrainedModel):
        return _own_tokenizer(config)
    vocabulary = {symbol: i for i, symbol in enumerate(("<eos>", "<unk>", *symbols))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def _own_tokenizer(config: PretrainedModel) -> PreTrainedTokenizerBase:
    """The model's own, whose EOS is the separator: its own EOS or one that is added."""
    tokenizer = from_hub(AutoTokenizer, config.name)
    if config.separator == "added":
        tokenizer.add_special_tokens({"eos_token": SEPARATOR})
    elif tokenizer.eos_token is None:
        found = f"the tokenizer of {config.name} has no EOS token, which separates question, CoT and answer"
        raise InputError(Problem("MOD004", "model.separator", found, 'set model.separator = "added"'))
    return tokenizer


def check_weights(config: ModelConfig) -> None:
    """Refuse a local model without weights, or LoRA without peft, before anything is written."""
    if isinstance(config, ScratchModel):
        return
    if config.lora_rank and find_spec("peft") is None:
        raise InputError(Problem("MOD005", "model.lora_rank", "peft is missing", 'pip install "stepwise[lora]"'))
    name = config.name
    if os.path.isdir(name) and not list(Path(name).glob("*.safetensors")):
        raise InputError(Problem("MOD003", "model.name", f"{name} holds no *.safetensors file", "save the model there"))


_LONGER = "set model.extend_positions, choose a model with more positions, or shorter examples"


def check_length(config: ModelConfig, positions: int, place: Callable[[], str]) -> None:
    """Refuse a pretrained model that is too short, before anything is queued. ``place``: of the longest example."""
    if isinstance(config, ScratchModel) or config.extend_positions:
        return
    available = getattr(from_hub(AutoConfig, config.name), "max_position_embeddings", 0)
    if positions > available:
        found = f"{config.name} has {available} positions, the longest example takes {positions} tokens ({place()})"
        raise InputError(Problem("MOD002", "model.name", found, _LONGER))


def from_hub(loader: type, name: str, **options: object):
    """``loader.from_pretrained``, with what can go wrong as an ``InputError``. A download shows how far it is."""
    local = os.path.isdir(name)
    if local:
        disable_progress_bar()
    try:
        return loader.from_pretrained(name, local_files_only=local, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        found = f"{name!r} could not be loaded: {first_line(error)}"
        raise InputError(
            Problem(
                "MOD001",
                "model.name",
                found,
                "give a Hugging Face id this machine can reach, or a local folder (after `git lfs pull`)",
            )
        ) from None
