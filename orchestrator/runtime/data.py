"""A job's examples as tokens: made once in the store, mapped by everyone. Imports model classes only to check them."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from orchestrator.config import Job, PretrainedModel
from orchestrator.identity import digest, non_default
from orchestrator.method.data import TokenTable, token_table
from orchestrator.method.hub import check_length, check_weights, load_tokenizer
from orchestrator.store import StageStore
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
        """CoT tokens of the longest CoT: the most that can be removed."""
        return max(self.train.total_tokens, self.validation.total_tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(self.train.longest, self.validation.longest)


def prepare_data(job: Job, store: StageStore) -> JobData:
    """Tokenize the job's data once; later calls, and workers, map the same files."""
    check_weights(job.model)
    task = make_task(job.task)
    tokenizer = load_tokenizer(job.model, task.symbols)
    identity = {"format": DATA_FORMAT, "task": non_default(job.task), "tokenizer": tokenizer.backend_tokenizer.to_str()}
    folder = store.root / "data" / digest(identity)
    train, validation = (
        token_table(task, split, tokenizer, folder / f"{split}.arrow") for split in ("train", "validation")
    )
    data = JobData(task, tokenizer, train, validation)
    check_length(job.model, data.longest)
    if isinstance(job.model, PretrainedModel):
        from orchestrator.method.pretrained import check_checkpoint

        check_checkpoint(job.model, int(max(train.tokens.max(), validation.tokens.max())))
    return data
