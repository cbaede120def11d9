"""Trained weights from elsewhere: loaded whole or refused, and fitted to a job: separator, positions, adapters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.config import PretrainedModel
from orchestrator.errors import InputError, Problem
from orchestrator.method.models.hub import KNOWN, check_extensible, from_hub, loading, positions_of
from orchestrator.method.models.layers import decoder_layers


def pretrained_model(
    config: PretrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int, seed: int
) -> PreTrainedModel:
    """The weights a chain starts from, on the CPU in fp32. ``positions``: tokens of the longest example."""
    model = _base(config)
    _check_causal(model, config)
    if config.separator == "added":
        _embed_separator(model, tokenizer)
    if config.extend_positions and positions > positions_of(model.config):
        _extend_positions(model, positions)
    if config.lora_rank:
        _add_adapters(model, config, seed)
    return model


def adapted_model(config: PretrainedModel, folder: Path) -> PreTrainedModel:
    """The base model with the adapters of a stage's folder, to be trained on."""
    model = _base(config)
    model.load_adapter(str(folder), is_trainable=True)
    return model


def merged_model(config: PretrainedModel, folder: Path) -> PreTrainedModel:
    """The base model with a stage's adapters added into its weights: a model like any other."""
    from peft import PeftModel

    return PeftModel.from_pretrained(_base(config), str(folder)).merge_and_unload()


def check_model(config: PretrainedModel, highest_token: int, *, needs_layers: bool) -> None:
    """Compare a local checkpoint with its configuration, and the data's tokens with a model's embeddings.

    ``needs_layers``: they will be taken one by one. Reads no weights. Raises ``InputError``.
    """
    if config.is_folder:
        model = _base(config, device_map="meta")
    else:
        own = from_hub(AutoConfig, config)
        with torch.device("meta"), loading(config):
            model = AutoModelForCausalLM.from_config(own, trust_remote_code=False)
    if needs_layers:
        decoder_layers(model)
    rows = model.get_input_embeddings().num_embeddings
    if config.separator == "eos" and highest_token >= rows:
        found = f"{config.name} embeds {rows} tokens, the tokenizer gives the data tokens up to {highest_token}"
        raise InputError(Problem("MOD016", "model.name", found, "use the tokenizer that belongs to the model"))


def _base(config: PretrainedModel, **options: Any) -> PreTrainedModel:
    model, info = from_hub(
        AutoModelForCausalLM,
        config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    if odd := _odd_weights(model, info):
        found = f"{config.name} is not the checkpoint of its config.json: {odd}"
        raise InputError(Problem("MOD006", "model.name", found, "give weights and configuration of one model"))
    return model


def _odd_weights(model: PreTrainedModel, info: dict[str, Any]) -> str:
    """Name a weight that is missing, has another shape, or belongs to a layer that the model lacks; "" if none."""
    if info["mismatched_keys"]:
        name, found, expected = min(info["mismatched_keys"])
        return f"{name} has the shape {tuple(found)}, expected {tuple(expected)}"
    if info["missing_keys"]:
        return f"{min(info['missing_keys'])} and {len(info['missing_keys']) - 1} other weights are missing"
    kinds = {re.sub(r"\d+", "N", name) for name in model.state_dict()}
    extra = [name for name in info["unexpected_keys"] if re.sub(r"\d+", "N", name) in kinds]
    return f"{min(extra)} belongs to a layer too many" if extra else ""


@torch.no_grad()
def _check_causal(model: PreTrainedModel, config: PretrainedModel) -> None:
    """Refuse a model that looks ahead, as BERT's does: it would read the answers it is to write."""
    logits = model.eval()(input_ids=torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]])).logits[:, :-1]
    if (logits[0] - logits[1]).abs().max() > 1e-5 * logits.abs().max():
        found = f"{config.name} ({model.config.model_type}) looks at later tokens: no causal language model"
        raise InputError(Problem("MOD013", "model.name", found, KNOWN))


@torch.no_grad()
def _embed_separator(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The separator begins as the mean of all tokens."""
    separator, known = tokenizer.eos_token_id, model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        table.weight[separator] = table.weight[: min(known, separator)].mean(0)
    model.config.eos_token_id = model.generation_config.eos_token_id = separator


@torch.no_grad()
def _extend_positions(model: PreTrainedModel, positions: int) -> None:
    """Repeat the last row of GPT-2's position table, as the released code does; rotary positions only go on."""
    check_extensible(model.config)  # here a training example counts that no batch takes as it is
    if model.config.model_type == "gpt2":
        table = model.transformer.wpe
        more = table.weight[-1:].expand(positions - table.num_embeddings, -1)
        table.weight = torch.nn.Parameter(torch.cat([table.weight, more]))
        table.num_embeddings = positions
    model.config.get_text_config().max_position_embeddings = positions


def _add_adapters(model: PreTrainedModel, config: PretrainedModel, seed: int) -> None:
    from peft import LoraConfig

    torch.manual_seed(seed)
    model.add_adapter(
        LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    )
