"""Examples as text and as tokens: the paper's training string, and the prompt that it begins with."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase

from orchestrator.errors import InputError, Problem
from orchestrator.tasks import Example

ANSWER_MARK = "####"


def training_text(example: Example, separator: str) -> str:
    """`` question E cot E #### answer E`` with a blank before every part (released code)."""
    return f" {example.question} {separator} {example.cot} {separator} #### {example.answer} {separator}"


def prompt_text(question: str, separator: str) -> str:
    """Return the prompt of a question: the training text up to its first separator."""
    return f" {question} {separator}"


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids with what the tokenizer puts before a text (BOS), without what it would put after it."""
    before = added_before(tokenizer)
    return [[*before, *ids] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def added_before(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer begins every text with."""
    bare, whole = tokenizer("1", add_special_tokens=False)["input_ids"], tokenizer("1")["input_ids"]
    return whole[: next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)]


def separators(ids: list[int], separator: int, first: int) -> list[int]:
    """Return the positions of the separators, from ``first`` on: a BOS token that is the same token is none."""
    return [i for i, token in enumerate(ids) if token == separator and i >= first]


def prompt_ids(question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A question as tokens, with its separator. Raises ``InputError`` for what the model was never shown."""
    separator = tokenizer.eos_token_id
    [ids] = encode([prompt_text(question, tokenizer.eos_token)], tokenizer)
    if unknown := unknown_words(question, ids, tokenizer):
        fix = "write it as the task does; `stepwise data JOB --split validation --limit 3` shows questions before ||"
        raise InputError(
            Problem("PRE001", repr(question), f"the model does not know {', '.join(map(repr, unknown))}", fix)
        )
    if len(separators(ids, separator, len(added_before(tokenizer)))) != 1:
        found = f"holds the separator {tokenizer.eos_token!r}"
        raise InputError(Problem("PRE004", repr(question), found, "it is added to every question; leave it out"))
    return ids


def written_text(ids: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Tokens as text, without separators: all that the tokenizer keeps. Words that are tokens stand apart."""
    ids = [token for token in ids if token != tokenizer.eos_token_id]
    if isinstance(tokenizer.backend_tokenizer.model, WordLevel):
        return " ".join(token or "\ufffd" for token in tokenizer.convert_ids_to_tokens(ids))  # a model may have more
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()


def written_mark(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the tokenizer makes of ``####``: BERT's writes ``# # # #``."""
    return written_text(tokenizer(ANSWER_MARK, add_special_tokens=False)["input_ids"], tokenizer) or ANSWER_MARK


def extract_answer(text: str, mark: str = ANSWER_MARK) -> str:
    """Return what follows the mark, a blank for any; a text without the mark is taken whole."""
    return " ".join(text.split(mark, 1)[-1].split())


def unknown_words(text: str, ids: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words for which the tokenizer has no token of its own."""
    unknown = tokenizer.unk_token_id
    if unknown == tokenizer.eos_token_id or unknown not in ids:
        return []
    words = dict.fromkeys(word for word in text.split() if tokenizer.unk_token not in word)
    return [word for word in words if unknown in tokenizer(word)["input_ids"]]
