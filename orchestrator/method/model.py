"""The model of a job: built from its symbols or loaded from Hugging Face; precision and attention."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from orchestrator.config import PretrainedModel, ScratchModel, Training
from orchestrator.errors import InputError, Problem

ModelConfig = ScratchModel | PretrainedModel


def load_tokenizer(config: ModelConfig, symbols: tuple[str, ...]) -> PreTrainedTokenizerBase:
    """One token a symbol for a model from scratch, else the pretrained model's own tokenizer."""
    if isinstance(config, PretrainedModel):
        return _from_hub(AutoTokenizer, config.name)
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


def initial_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, positions: int, seed: int
) -> PreTrainedModel:
    """The weights a chain starts from, on the CPU in fp32. ``positions``: tokens of the longest example."""
    if isinstance(config, PretrainedModel):
        return _from_hub(AutoModelForCausalLM, config.name, dtype=torch.float32, use_safetensors=True)
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=positions,
            n_layer=config.layers,
            n_embd=config.width,
            n_head=config.heads,
            activation_function="gelu",
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def check_model(config: ModelConfig, positions: int) -> None:
    """Refuse a pretrained model that is not there or too short, before anything is queued."""
    if isinstance(config, ScratchModel):
        return
    name = config.name
    if os.path.isdir(name) and not list(Path(name).glob("*.safetensors")):
        raise InputError(Problem("MOD003", "model.name", f"{name} holds no *.safetensors file", "save the model there"))
    available = getattr(_from_hub(AutoConfig, name), "max_position_embeddings", positions)
    if positions > available:
        found = f"{name} has {available} positions, the longest example takes {positions} tokens"
        raise InputError(Problem("MOD002", "model.name", found, "choose a model with more positions or fewer digits"))


def load_weights(folder: Path) -> PreTrainedModel:
    """The model of a committed stage."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )


def save_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Safetensors and tokenizer in Hugging Face layout."""
    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def place(model: PreTrainedModel, device: torch.device, training: Training) -> PreTrainedModel:
    """On its device, with eager attention on a CPU (measured: twice as fast here), SDPA on a GPU (not measured)."""
    by_device = "eager" if device.type == "cpu" else "sdpa"
    model.set_attn_implementation(by_device if training.attention == "auto" else training.attention)
    return model.to(device)


def autocast(device: torch.device, training: Training) -> AbstractContextManager[None]:
    """bf16 autocast where the device computes in bf16 (or where the job insists), else nothing."""
    enabled = training.precision == "bf16" or (training.precision == "auto" and _computes_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return "AVX512" in capabilities and torch.cpu._is_avx512_bf16_supported()


def _from_hub(loader: type, name: str, **options: object):
    local = os.path.isdir(name)
    try:
        return loader.from_pretrained(name, local_files_only=local, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        found = f"{name!r} could not be loaded: {(str(error) or repr(error)).splitlines()[0]}"
        raise InputError(
            Problem(
                "MOD001",
                "model.name",
                found,
                "give a Hugging Face id this machine can reach, or a local folder (after `git lfs pull`)",
            )
        ) from None
