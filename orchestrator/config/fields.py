"""The tables of a job file: every field, its default, its limits, and what it is for."""

from __future__ import annotations

import math
import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Method = Literal["no_cot", "explicit_cot", "stepwise", "icot_kd"]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Stages = Annotated[int, Field(ge=0, le=10_000)]
Steps = Annotated[int, Field(ge=0, le=2**31 - 1)]
Epochs = Annotated[float, Field(ge=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Section(BaseModel):
    """A table of the job file. Unknown keys are refused, values are never coerced."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
    )


class MultiplicationTask(Section):
    """Multiplication of two numbers in the paper's format, least significant digit first."""

    type: Literal["multiplication"] = "multiplication"
    """The task. Its examples are generated, nothing is downloaded."""
    digits: Annotated[
        tuple[Annotated[int, Field(ge=1, le=20)], ...],
        Field(strict=False, min_length=2, max_length=2, examples=[[3, 2]]),
    ]
    """Digits of the first and of the second factor, each without leading zeros: [4, 4] is the paper's 4x4."""
    train_examples: Count | None = None
    """Train on the first n examples only. Default: all (808,000, or the whole smaller space)."""


def _home_expanded(place: str) -> str:
    """A path or a file's URI in which ``~`` or ``~user`` is the home folder that it stands for."""
    before, tilde, behind = place.partition("~")
    if not tilde or before not in ("", "sqlite:///", "file:", "file://", "file:///"):
        return place
    expanded = os.path.expanduser(tilde + behind)
    if expanded.startswith("~"):
        raise PydanticCustomError("home", "~ stands for no home folder here; give the whole path")
    return before.replace("file:///", "file://") + expanded


Text = Annotated[str, Field(min_length=1, max_length=500)]
Location = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_home_expanded)]
"""A path, in which ``~`` is the home folder, or a name that stands in its place."""


class ExampleSource(Section):
    """Where the examples of a task lie: local files, or the splits of a Hugging Face dataset."""

    train: Annotated[Location, Field(examples=["train.jsonl"])]
    """Training examples: a file (``.txt`` in the reference format ``question||cot #### answer``, ``.jsonl`` or
    ``.parquet``), or with ``dataset`` the name of a split, as ``train`` or ``train[:-500]``."""
    validation: Annotated[Location, Field(examples=["valid.jsonl"])]
    """Examples that stages are measured on: a file, or a split."""
    test: Location | None = None
    """Examples that no run reads; for ``stepwise evaluate``, ``data`` and ``doctor``."""
    dataset: Location | None = None
    """Hugging Face dataset id (``openai/gsm8k``) or the path of a local folder, as one with ``train.csv``, instead of
    files."""
    subset: Text | None = None
    """The dataset's configuration, as ``main``."""
    revision: Text | None = None
    """The dataset's commit, branch or tag. Default: its newest."""
    question_column: Text = "question"
    """The column with the question; of a JSON line its key."""
    answer_column: Text = "answer"
    """The column with the answer."""
    train_examples: Count | None = None
    """Train on the first n examples only. Default: all."""

    @model_validator(mode="after")
    def _dataset_fields(self) -> ExampleSource:
        if not self.dataset and (self.subset or self.revision):
            raise PydanticCustomError("conflict", "subset and revision are of a dataset; name it or remove them")
        return self


class TextTask(ExampleSource):
    """Your own questions, chains of thought and answers, as words or as any other text."""

    type: Literal["text"] = "text"
    """The task. Its examples are read."""
    cot_column: Text = "cot"
    """The column with the chain of thought: a text, or a list of texts, which a blank joins. Data in which no example
    has a column ``cot`` have no CoT, which is for ``methods = ["no_cot"]``."""
    answers: Literal["text", "number"] = "text"
    """``text``: an answer is right if it is the same, but for how wide its blanks are. ``number``: if it is the same
    number, whose thousands may stand apart (1,234, 1 234, 1’234), with a currency sign or without; tuples, lists and
    ranges are no number."""


class Gsm8kTask(ExampleSource):
    """Grade-school mathematics (GSM8K): ``question||steps #### answer``, augmented as in the paper or plain."""

    type: Literal["gsm8k"] = "gsm8k"
    """The task. Its examples are read; an answer is right if it is the same number, as with ``answers = "number"``."""
    cot_column: Text | None = None
    """The column with the steps. Default: the answer's column holds ``steps #### answer``, as published."""
    cot: Literal["written", "equations"] = "written"
    """``written``: the steps as they stand. ``equations``: only what they have in ``<<48/2=24>>``, the paper's CoT."""


class ScratchModel(Section):
    """A GPT-2-shaped model with random weights and a tokenizer of the task's own symbols."""

    type: Literal["scratch"] = "scratch"
    """A model built here, one token a symbol."""
    layers: Count = 3
    """Transformer blocks."""
    width: Count = 128
    """Size of the residual stream."""
    heads: Count = 4
    """Attention heads; must divide the width."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout everywhere GPT-2 has it. Released GPT-2 weights use 0.1."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchModel:
        if self.width % self.heads:
            raise PydanticCustomError(
                "conflict", f"width {self.width} is not divisible by heads {self.heads}; change one of them"
            )
        return self


class PretrainedModel(Section):
    """Any Hugging Face causal language model and its tokenizer."""

    type: Literal["pretrained"] = "pretrained"
    """A model with trained weights."""
    name: Annotated[Location, Field(examples=["gpt2"])]
    """Hugging Face id (``gpt2``) or the path of a local folder with safetensors."""
    revision: Text | None = None
    """A branch, tag or commit of a model on the Hugging Face hub. Default: ``main``, which may change. To load a LoRA
    stage without Stepwise, name it again."""
    separator: Literal["eos", "added"] = "eos"
    """``eos``: the model's end-of-text token stands between question, CoT and answer, as in the paper. ``added``: a
    token of its own, for texts in which EOS may occur and for tokenizers without one."""
    extend_positions: bool = False
    """Give the model as many positions as the longest example takes. Of a learnt position table the last row is
    repeated, as in the authors' code."""
    lora_rank: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Train low-rank adapters of this rank on all linear layers (LoRA), and nothing else. A stage then holds the
    adapters alone. Needs ``pip install "stepwise[lora]"``. Default: all weights are trained."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """LoRA's α: the adapters count α / rank times."""

    @property
    def is_folder(self) -> bool:
        """Return whether the name is a local folder's. A loaded job has full paths, and a relative name is an id."""
        return os.path.isabs(self.name)

    @model_validator(mode="after")
    def _adapters_alone(self) -> PretrainedModel:
        if self.lora_rank and (self.separator == "added" or self.extend_positions):
            raise PydanticCustomError(
                "conflict",
                "LoRA leaves the embeddings as they are, so nothing can be added to them; remove lora_rank, or "
                "separator and extend_positions",
            )
        return self


def infinity(value: Any) -> Any:
    """JSON has no number for it: jobs that travel as JSON spell it as pydantic does."""
    return math.inf if value in ("inf", "Infinity") else value


class Schedule(Section):
    """When which CoT token goes (paper §3), and how the chain is cut into stages."""

    type: Literal["linear", "reference", "adaptive"] = "linear"
    """``linear``: after step t of the removal, floor(Δ t / T) tokens are gone (the paper). ``reference``:
    one token every round(N / Δ) batches of an epoch of N, as the authors' released script does.
    ``adaptive``: as ``linear``, but a token goes earlier once the model has recovered from the one before (knows
    the answer again from what is left of the CoT), and consolidation goes over to the cooldown once 80 % of the
    answers are right or the loss has levelled off, or ends at stability.min_exact_match where there is no cooldown
    (ours, the paper's future work)."""
    tokens_per_stage: Annotated[float, Field(ge=0.001)] = 8
    """Δ: CoT tokens removed per stage, one by one and evenly inside it. May be fractional."""
    stage_epochs: Annotated[Epochs, Field(gt=0)] | None = None
    """T: length of a stage in passes over the training data. Default 1, as in the paper."""
    stage_steps: Count | None = None
    """T: length of a stage in optimizer steps, instead of stage_epochs."""
    pretrain_epochs: Epochs | None = None
    """Stage 0: passes over the data with the whole CoT and no smoothing, before the schedule's clock
    starts. Default 0, as in the paper, which starts from a model that can already write its CoT."""
    pretrain_steps: Steps | None = None
    """Stage 0 in optimizer steps, instead of pretrain_epochs."""
    consolidation_stages: Stages = 0
    """Further stages of T steps once nothing is left to remove."""
    cooldown_stages: Stages = 0
    """Over the last n consolidation stages the learning rate falls linearly to zero; with any, so it does over the last
    30 % of each part of ICoT-KD. Paper: 0, a constant rate."""
    removal_side: Literal["left", "right"] = "left"
    """The end of the CoT from which tokens are removed. Paper: left."""
    smoothing_lambda: Annotated[float, Field(gt=0, allow_inf_nan=True), BeforeValidator(infinity)] = 4.0
    """λ of removal smoothing: each example loses o further tokens, P(o) ∝ exp(-λ o). ``inf``: none."""
    remove_all_beyond: Count | None = None
    """Once this many tokens are scheduled for removal, remove the whole CoT. Paper: 39 for GSM8K."""
    keep_position: bool = False
    """Keep the position ids that the remaining tokens had before the removal (paper, appendix C)."""

    @model_validator(mode="after")
    def _one_unit_each(self) -> Schedule:
        for a, b in (("stage_epochs", "stage_steps"), ("pretrain_epochs", "pretrain_steps")):
            if getattr(self, a) is not None and getattr(self, b) is not None:
                raise PydanticCustomError("conflict", f"{a} and {b} are both set; keep one")
        if self.cooldown_stages > self.consolidation_stages:
            raise PydanticCustomError("conflict", "cooldown_stages exceeds consolidation_stages; it is a part of them")
        whole = self.stage_epochs in (None, 1) and (self.pretrain_epochs or 0) % 1 == 0
        if self.type == "reference" and (self.stage_steps or self.pretrain_steps or not whole):
            raise PydanticCustomError(
                "conflict",
                "a stage of the reference schedule is one epoch; remove stage_epochs, stage_steps and pretrain_steps, "
                "and give pretrain_epochs a whole number",
            )
        return self


class IcotKd(Section):
    """How long each part of ICoT-KD trains (Deng et al. 2023). Read by the method ``icot_kd`` alone."""

    teacher_epochs: Annotated[Epochs, Field(gt=0)] = 1
    """Passes over the data after which the teacher has its weights: the first stages of the job's Explicit CoT
    that are at least so long. Paper: 1 for multiplication, 15 for GSM8K."""
    student_epochs: Annotated[Epochs, Field(gt=0)] = 7
    """The passes over the data of the mind-reading student, which answers from the teacher's thoughts. Paper: at most
    40; the weights after the seventh are used."""
    emulator_epochs: Annotated[Epochs, Field(gt=0)] = 6
    """The passes over the data of the thought emulator, which predicts those thoughts. Paper: at most 40; the weights
    after the sixth are used."""
    coupling_epochs: Annotated[Epochs, Field(gt=0)] = 40
    """The passes over the data of emulator and student trained as one. Paper: at most 40."""
    mixture_size: Count = 1
    """Learned vectors that the emulator mixes by what a layer has at hand; 1: no mixture, as in the paper's
    multiplication. Its value for GSM8K is not published."""
    mixture_temperature: Annotated[float, Field(gt=0)] = 0.05
    """The temperature of the softmax over the mixture vectors."""


HIGHEST_MUON_RATE = 0.1
"""At 5e-3 one of two seeds of 3x2 digits is lost already."""


class Training(Section):
    """One optimizer step, as in the paper's appendix A unless said otherwise."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """``adamw``: as in the paper. ``muon``: Muon for the matrices of the blocks, AdamW at the same rate for embeddings,
    norms, biases and head; a small model from scratch learns several times faster with it."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """The optimizer's rate, constant but for the warm-up and the schedule's cooldown."""
    batch_size: Count = 32
    """Examples per optimizer step, over all workers together."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay, on all parameters (as the authors' code does)."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    max_train_tokens: Count | None = None
    """Leave examples out of a batch that have more tokens than this after the removal. Paper: 150 for GSM8K,
    where the authors' code drops the whole batch of such an example."""
    warmup_steps: Steps = 0
    """Steps of linear warm-up after each new optimizer. Paper: none."""
    reset_optimizer: bool = True
    """Build a new optimizer whenever a token is removed (paper §3)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``auto``: bf16 autocast where the device computes in bf16, else fp32."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """The attention kernel. ``auto``: eager on a CPU and SDPA on a GPU, the faster one in our measurements."""

    @model_validator(mode="after")
    def _rate_of_muon(self) -> Training:
        if self.optimizer == "muon" and self.learning_rate > HIGHEST_MUON_RATE:
            raise PydanticCustomError(
                "conflict",
                f"learning_rate {self.learning_rate:g} is too high for muon, whose every update has the same size; "
                f"give at most {HIGHEST_MUON_RATE:g} (2e-3 suits small models from scratch)",
            )
        return self


class Evaluation(Section):
    """How a stage is measured. Decoding is greedy."""

    examples: Count | None = None
    """Use the first n validation examples. Default: all."""
    batch_size: Annotated[int, Field(ge=1, le=100_000)] = 250
    """Examples per forward pass."""
    speed_examples: Annotated[int, Field(ge=1, le=100_000)] = 8
    """Examples decoded one by one for examples/s at batch 1."""
    speed_batch: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Examples decoded together for examples/s at a large batch."""


class Stability(Section):
    """When a stage has failed, and what is done about it. For ``stepwise``; baselines only have to stay finite."""

    restarts: bool = True
    """Go on from an earlier good stage after a diverged or stuck one: with another seed, then more slowly, then
    from further back; where nothing is left to remove, from before the removals, more slowly. False: a stage ends
    only if its numbers are not finite, and its trial with it."""
    min_exact_match: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """The exact match that a finished trial should reach. A stage this good in a spot check has recovered, whatever
    its loss."""
    probe_examples: Annotated[int, Field(ge=8, le=100_000)] = 128
    """The first n validation examples: up to 20 spot checks a stage. More: surer verdicts, slower stages."""
    max_restarts_per_stage: Annotated[int, Field(ge=0, le=100)] = 6
    """Failed attempts of a stage that are answered by a restart; after one more the trial gives up."""
    max_compute: Annotated[float, Field(ge=1, le=1000)] = 3.0
    """Give up before a restart that would bring all attempts over this many times the trial's planned steps."""


class Resources(Section):
    """The resources of one trial. They are not part of a stage's identity."""

    workers: Count = 1
    """Ray Train workers of a trial (data-parallel)."""
    cpus_per_worker: Annotated[float, Field(ge=0.01)] = 1
    """CPU cores of a worker, and its torch threads (at least one). Below 1, trials share a core."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] = 0
    """1: each worker trains on a GPU. 0.25: four workers share one, for small models."""
    micro_batch: Count | None = None
    """Examples in one forward pass of a worker. The gradients of a step's batch are added up over as many passes
    as it takes: less memory, the same step. Default: a worker's whole share."""
    micro_batch_tokens: Count | None = None
    """Tokens in one forward pass of a worker, padding included, instead of micro_batch. The examples of a step's batch
    are sorted by length for it, so that little is padded; the batch, and the step, stay the same."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third slower."""
    shard: bool = False
    """Split weights, gradients and AdamW's moments over the workers (FSDP2) instead of giving each a copy, for models
    that are too large for one. The first worker holds a whole copy of the weights beside its share, to measure with."""
    max_concurrent_trials: Count | None = None
    """At most this many trials at a time. Default: as many as fit."""

    @model_validator(mode="after")
    def _shards_over_workers(self) -> Resources:
        if self.shard and self.workers == 1:
            raise PydanticCustomError(
                "conflict", "shard splits the weights over workers and there is 1; raise workers or remove shard"
            )
        return self

    @model_validator(mode="after")
    def _one_size_of_pass(self) -> Resources:
        if self.micro_batch_tokens and (self.micro_batch or self.shard):
            raise PydanticCustomError(
                "conflict",
                "micro_batch_tokens goes neither with micro_batch, which says the same in examples, nor with shard, "
                "whose workers must all take as many passes; keep one",
            )
        return self


class Tracking(Section):
    """Where MLflow records the frontier."""

    uri: Annotated[str, Field(min_length=1), AfterValidator(_home_expanded)] | None = None
    """MLflow tracking URI. Default: an SQLite file in the store."""
    experiment: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Experiment name. Default: ``stepwise/<job name>``."""

    @model_validator(mode="after")
    def _no_password(self) -> Tracking:
        if self.uri and re.search(r"://[^/@]*:[^/@]*@", self.uri):
            raise PydanticCustomError(
                "password",
                "the URI holds a password; remove it and set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD instead (value not shown)",
            )
        return self
