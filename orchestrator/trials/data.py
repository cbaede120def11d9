"""A job's examples as tokens: made once in the store, mapped by all. Imports model classes only to check them."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from orchestrator.config import Job, PretrainedModel, ScratchModel
from orchestrator.errors import InputError, Problem
from orchestrator.identity import digest
from orchestrator.method.models.hub import check_length, check_weights, load_tokenizer
from orchestrator.method.tokens import TokenTable, token_table
from orchestrator.store import StageStore, inside
from orchestrator.tasks import Task, make_task

DATA_FORMAT = 2


@dataclass(frozen=True)
class JobData:
    """The task, tokenizer and tokens of a job."""

    task: Task
    tokenizer: PreTrainedTokenizerBase
    train: TokenTable
    validation: TokenTable

    @property
    def total_tokens(self) -> int:
        """Return the CoT tokens of the longest CoT: the most that can be removed."""
        return max(self.train.total_tokens, self.validation.total_tokens)

    @property
    def longest(self) -> int:
        """Return the tokens of the longest example."""
        return max(self.train.longest, self.validation.longest)


def prepare_data(job: Job, store: StageStore) -> JobData:
    """Tokenize the job's data once; later calls, and workers, map the same files.

    Raises ``InputError`` for data that the model cannot take, with the place of the example.
    """
    check_weights(job.model)
    task = make_task(job.task)
    tokenizer = load_tokenizer(job.model, task.symbols if isinstance(job.model, ScratchModel) else ())
    identity = {"format": DATA_FORMAT, "task": task.identity, "tokenizer": tokenizer.backend_tokenizer.to_str()}
    folder = inside(store.root, store.root / "data" / digest(identity))
    train, validation = (
        token_table(task, split, tokenizer, folder / f"{split}.arrow") for split in ("train", "validation")
    )
    data = JobData(task, tokenizer, train, validation)
    _check_positions(job, data)
    limit, shortest = job.training.max_train_tokens, int(train.lengths.min())
    if limit is not None and limit < shortest:
        found = f"{limit} leaves out every training example; the shortest has {shortest} tokens"
        raise InputError(Problem("DAT014", "training.max_train_tokens", found, f"give at least {shortest}"))
    if isinstance(job.model, PretrainedModel):
        from orchestrator.method.models.pretrained import check_model

        highest = int(max(train.tokens.max(), validation.tokens.max()))
        check_model(job.model, highest, needs_layers="icot_kd" in job.methods or job.resources.shard)
    return data


def _check_positions(job: Job, data: JobData) -> None:
    """Raise ``InputError`` unless the model has a position for every token of the longest example it meets."""
    limit = job.training.max_train_tokens
    trained = data.train.longest if limit is None or job.schedule.keep_position else min(limit, data.train.longest)
    positions = max(trained, data.validation.longest)

    def place() -> str:
        split, table = ("train", data.train) if trained == positions else ("validation", data.validation)
        return data.task.place(split, int((table.lengths >= positions).argmax()))

    check_length(job.model, positions, place)
