"""The tokenizer and the length of a model, read without loading it. Light to import, unlike the model classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from orchestrator.config import PretrainedModel, ScratchModel
from orchestrator.environment import OF_HUB, set_here
from orchestrator.errors import InputError, Problem, first_line
from orchestrator.files import is_pointer

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
    tokenizer = from_hub(AutoTokenizer, config)
    if not tokenizer("1", add_special_tokens=False)["input_ids"]:
        found = f"the tokenizer of {config.name} has no token for 1"
        raise InputError(Problem("MOD011", "model.name", found, "save the model's tokenizer beside its weights"))
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
    if config.is_folder:
        _check_folder(Path(config.name), config.revision)


def _check_folder(folder: Path, revision: str | None) -> None:
    if revision:
        found = f"{revision!r}, but {folder} is a local folder, which has no revisions"
        raise InputError(Problem("MOD009", "model.revision", found, "remove it"))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        found = f"{folder} holds no *.safetensors file"
        raise InputError(Problem("MOD003", "model.name", found, "save the model there"))
    for path in (*sorted(folder.glob("*.json")), *folder.glob("*.model"), *weights):
        if is_pointer(path):
            found, fix = f"{path} is a Git LFS pointer, not the file", "run `git lfs pull` in its repository"
            raise InputError(Problem("MOD014", "model.name", found, fix))


def positions_of(config: PretrainedConfig) -> int:
    """Return the number of positions of a model."""
    return config.get_text_config().max_position_embeddings


KNOWN = "choose a model such as GPT-2, Llama, Mistral, Qwen or Phi"
_LONGER = "set model.extend_positions, choose a model with more positions, or shorter examples"


def check_length(config: ModelConfig, positions: int, place: Callable[[], str]) -> None:
    """Refuse a pretrained model that is too short and does not get longer, before anything is queued.

    ``place``: of the longest example.
    """
    if isinstance(config, ScratchModel):
        return
    own = from_hub(AutoConfig, config)
    if getattr(own.get_text_config(), "max_position_embeddings", 0) < 1:
        found = f"{config.name} ({own.model_type}) has no number of positions"
        raise InputError(Problem("MOD008", "model.name", found, KNOWN))
    available = positions_of(own)
    if positions <= available:
        return
    if not config.extend_positions:
        found = f"{config.name} has {available} positions, the longest example takes {positions} tokens ({place()})"
        raise InputError(Problem("MOD002", "model.name", found, _LONGER))
    check_extensible(own)


def check_extensible(config: PretrainedConfig) -> None:
    """Refuse a model whose positions are neither a learnt table as GPT-2's nor plain rotary ones."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if config.model_type != "gpt2" and rope.get("rope_type") != "default":
        found = f"{config.model_type} has positions that cannot be extended here"
        raise InputError(Problem("MOD007", "model.extend_positions", found, "choose a model with more positions"))


def from_hub(loader: type, config: PretrainedModel, **options: object) -> Any:
    """``loader.from_pretrained``, with what can go wrong as an ``InputError``. A download shows how far it is."""
    local = config.is_folder
    name = str(Path(config.name).resolve()) if local else config.name
    if local:
        disable_progress_bar()
    with loading(config):
        return loader.from_pretrained(
            name, revision=config.revision or "main", local_files_only=local, trust_remote_code=False, **options
        )


@contextmanager
def loading(config: PretrainedModel) -> Iterator[None]:
    """Raise an ``InputError`` for whatever goes wrong with a model inside the block.

    ``trust_remote_code=False`` goes with every call: without it transformers asks whether to run a model's own
    code, and a ``y`` in what is piped in is an answer.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            found = f"{config.name!r} needs code that comes with it, which is never run here"
            fix = "choose a model whose class is part of transformers"
            raise InputError(Problem("MOD012", "model.name", found, fix)) from None
        unset = "" if config.is_folder else set_here(*OF_HUB)
        found = f"{config.name!r} could not be loaded: {first_line(error)}{unset}"
        raise InputError(
            Problem(
                "MOD001",
                "model.name",
                found,
                "give a Hugging Face id this machine can reach, or a local folder (after `git lfs pull`)",
            )
        ) from None
