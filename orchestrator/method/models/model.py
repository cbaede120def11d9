"""The model of a job: built from its symbols or loaded from Hugging Face; precision and attention."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from orchestrator.config import PretrainedModel, Training
from orchestrator.method.models.hub import ModelConfig
from orchestrator.method.models.pretrained import adapted_model, merged_model, pretrained_model


def initial_model(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, positions: int, seed: int
) -> PreTrainedModel:
    """The weights a chain starts from, on the CPU in fp32. ``positions``: tokens of the longest example."""
    if isinstance(config, PretrainedModel):
        return pretrained_model(config, tokenizer, positions, seed)
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


def stage_model(config: ModelConfig, folder: Path) -> PreTrainedModel:
    """The model of a committed stage, on the CPU in fp32. Of LoRA: the base model with the stage's adapters."""
    if isinstance(config, PretrainedModel) and config.lora_rank:
        return adapted_model(config, folder)
    return load_weights(folder)


def whole_model(config: ModelConfig, folder: Path) -> PreTrainedModel:
    """The model of a committed stage, with the adapters of LoRA merged into its weights."""
    if isinstance(config, PretrainedModel) and config.lora_rank:
        return merged_model(config, folder)
    return load_weights(folder)


def stage_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a committed stage."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_weights(folder: Path) -> PreTrainedModel:
    """The model in a folder that holds all its weights."""
    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )


def save_weights(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Safetensors and tokenizer in Hugging Face layout."""
    disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def set_attention(model: PreTrainedModel, device: torch.device, training: Training) -> None:
    """Eager on a CPU (measured: twice as fast here), SDPA on a GPU (not measured), unless the job says otherwise."""
    by_device = "eager" if device.type == "cpu" else "sdpa"
    model.set_attn_implementation(by_device if training.attention == "auto" else training.attention)


def autocast(device: torch.device, training: Training) -> AbstractContextManager[None]:
    """bf16 autocast where the device computes in bf16 (or where the job insists), else nothing."""
    enabled = training.precision == "bf16" or (training.precision == "auto" and _computes_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else ""
    return "AVX512" in capabilities and torch.cpu._is_avx512_bf16_supported()
