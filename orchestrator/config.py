"""A job file: its models, how it is read, and how every problem in it is reported at once.

The string under each field is its reference: ``stepwise schema``, ``stepwise init`` and the
documentation come from it.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from orchestrator.errors import InputError, Problem

MAX_JOB_BYTES = 1 << 20
MAX_CONFIGURATIONS = 256
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Method = Literal["no_cot", "explicit_cot", "stepwise"]
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
    name: Annotated[str, Field(min_length=1, max_length=500)]
    """Hugging Face id (``gpt2``) or the path of a local folder with safetensors."""


def _model_type(model: Any) -> Any:
    return model.get("type", "scratch") if isinstance(model, dict) else getattr(model, "type", None)


def _infinity(value: Any) -> Any:
    """JSON has no number for it: jobs that travel as JSON spell it as pydantic does."""
    return math.inf if value in ("inf", "Infinity") else value


class Schedule(Section):
    """When which CoT token goes (paper §3), and how the chain is cut into stages."""

    type: Literal["linear", "reference", "adaptive"] = "linear"
    """``linear``: after step t of the removal, floor(Δ t / T) tokens are gone (the paper). ``reference``:
    one token every round(N / Δ) batches of an epoch of N, as the authors' released script does.
    ``adaptive``: a token goes once the model has recovered from the one before; a stage of Δ tokens takes at
    most T steps, and consolidation ends at stability.min_exact_match (ours, the paper's future work)."""
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
    """Over the last n consolidation stages the learning rate falls linearly to zero. Paper: 0, a constant rate."""
    removal_side: Literal["left", "right"] = "left"
    """The end of the CoT from which tokens are removed. Paper: left."""
    smoothing_lambda: Annotated[float, Field(gt=0, allow_inf_nan=True), BeforeValidator(_infinity)] = 4.0
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


class Training(Section):
    """One optimizer step, as in the paper's appendix A unless said otherwise."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """AdamW's rate, constant but for the warm-up and the schedule's cooldown."""
    batch_size: Count = 32
    """Examples per optimizer step, over all workers together."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's decay of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay, on all parameters (as the authors' code does)."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    warmup_steps: Steps = 0
    """Steps of linear warm-up after each new optimizer. Paper: none."""
    reset_optimizer: bool = True
    """Build a new AdamW whenever a token is removed (paper §3)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``auto``: bf16 autocast where the device computes in bf16, else fp32."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """``auto``: what was faster on this kind of device: eager on a CPU, SDPA on a GPU."""


SEARCHABLE = tuple(
    f"{name}.{key}"
    for name, section in (("schedule", Schedule), ("training", Training), ("model", ScratchModel))
    for key in section.model_fields
    if (name, key) != ("model", "type")
)
"""The fields a search may vary: those that change a trial but not its data."""


def _searchable(field: str) -> str:
    if field not in SEARCHABLE:
        same = [known for known in SEARCHABLE if known.endswith(f".{field.rsplit('.', 1)[-1]}")]
        near = same or difflib.get_close_matches(field, SEARCHABLE, 1, cutoff=0.5)
        hint = f'did you mean "{near[0]}"?' if near else "name a field of schedule, training or a scratch model"
        raise PydanticCustomError("search_field", f"not a field that a search varies; {hint}")
    return field


class Range(Section):
    """Values from ``low`` to ``high``, both included; whole numbers if both ends are. Drawn floats have 4 digits."""

    low: int | float
    """The smallest value."""
    high: int | float
    """The largest value."""
    log: bool = False
    """Draw evenly in the logarithm, as suits learning rates."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise PydanticCustomError("conflict", f"low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise PydanticCustomError("conflict", f"a logarithm needs low above 0, found {self.low:g}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("scalar", "expected a number, a word, true or false")
    return _infinity(value)


Scalar = bool | int | float | str
Value = Annotated[Any, BeforeValidator(_scalar, json_schema_input_type=Scalar)]
Choices = Annotated[tuple[Value, ...], Field(strict=False, min_length=1, max_length=MAX_CONFIGURATIONS)]
Values = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(lambda values: "range" if isinstance(values, dict | Range) else "choices"),
]


def _flat(space: Any) -> Any:
    """``schedule.x = [...]`` nests in TOML; a quoted ``"schedule.x"`` does not. Both mean the same field."""
    if not isinstance(space, dict):
        return space
    flat: dict[str, Any] = {}
    for key, value in space.items():
        if isinstance(value, dict) and not value.keys() & Range.model_fields.keys():
            flat |= {f"{key}.{inner}": values for inner, values in value.items()}
        else:
            flat[key] = value
    return flat


class Search(Section):
    """Which configurations are tried: every one with every seed, and what makes one better than another."""

    type: Literal["grid", "random", "optuna"] = "grid"
    """``grid``: every combination. ``random``: so many drawn when the job is planned. ``optuna``: proposed
    one after another by Optuna's TPE, which learns from the configurations that are finished."""
    configurations: Annotated[int, Field(ge=1, le=MAX_CONFIGURATIONS)] | None = None
    """How many are drawn or proposed; random and optuna only."""
    objective: Literal["area", "removed_tokens"] = "area"
    """``area``: under exact match over removed tokens, 1 where every stage is perfect. ``removed_tokens``: the most
    tokens removed with an exact match of at least ``min_accuracy``."""
    min_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Exact match that counts for the objective ``removed_tokens``."""
    aggregate: Literal["mean", "worst"] = "mean"
    """What the seeds of a configuration are judged by together."""
    prune: bool = False
    """Stop configurations that stay behind the best third at equal removed tokens. A small model's late recovery
    cannot always be foreseen, so nothing is stopped unless asked for."""
    seed: Seed = 0
    """Of the drawing or of Optuna's proposals; not of any training."""
    space: Annotated[
        dict[Annotated[str, AfterValidator(_searchable)], Values],
        Field(min_length=1, max_length=6, examples=[{"schedule.tokens_per_stage": [1, 2]}]),
        BeforeValidator(_flat, json_schema_input_type=dict[str, Values | dict[str, Values]]),
    ]
    """Fields of schedule, training or a scratch model: each with a list of choices, or for random and optuna
    a range as ``{ low = 1e-4, high = 1e-3, log = true }``."""

    @model_validator(mode="after")
    def _agrees(self) -> Search:
        if problems := list(self._problems()):
            raise PydanticCustomError("conflict", "; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        for field, values in self.space.items():
            if isinstance(values, Range):
                if self.type == "grid":
                    yield f"{field} is a range; a grid needs a list of choices"
            elif len(set(values)) < len(values):
                yield f"{field} names the same choice twice"
        size = self.size
        if self.type == "grid":
            if self.configurations is not None:
                yield "configurations is for random and optuna; a grid has every combination, remove it"
            if size > MAX_CONFIGURATIONS:
                yield f"{size:,} combinations are more than {MAX_CONFIGURATIONS}; name fewer choices or draw"
        elif self.configurations is None:
            yield f"configurations is missing; say how many are {'drawn' if self.type == 'random' else 'proposed'}"
        elif self.configurations > size:
            yield f"configurations is {self.configurations}, the space has only {size}; lower it"

    @property
    def size(self) -> float:
        """How many different configurations there are."""
        return math.prod(
            len(values) if isinstance(values, tuple) else values.high - values.low + 1 if values.whole else math.inf
            for values in self.space.values()
        )


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
    from further back. False: a stage ends only if its numbers are not finite (or, under the adaptive schedule,
    if it does not recover), and its trial with it."""
    min_exact_match: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """What a finished trial should reach: a stage this good on the probe has recovered, whatever its loss."""
    probe_examples: Annotated[int, Field(ge=8, le=100_000)] = 128
    """The first n validation examples are looked at up to 20 times a stage. More: surer verdicts, slower stages."""
    max_restarts_per_stage: Annotated[int, Field(ge=0, le=100)] = 6
    """Failed attempts of a stage that are answered by a restart; after one more the trial gives up."""
    max_compute: Annotated[float, Field(ge=1, le=1000)] = 2.0
    """Give up before a restart once all attempts took this many times the trial's planned steps."""


class Resources(Section):
    """What one trial takes. Not part of a stage's identity."""

    workers: Count = 1
    """Ray Train workers of a trial (data-parallel)."""
    cpus_per_worker: Annotated[float, Field(ge=0.01)] = 1
    """CPU cores of a worker, and its torch threads (at least one). Below 1, trials share a core."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """1: each worker trains on a GPU."""
    max_concurrent_trials: Count | None = None
    """At most this many trials at a time. Default: as many as fit."""


class Tracking(Section):
    """Where MLflow records the frontier."""

    uri: Annotated[str, Field(min_length=1)] | None = None
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


class Job(Section):
    """What a user writes and submits."""

    version: Literal[1] = 1
    """Version of the job file format."""
    name: Annotated[str, Field(pattern=NAME)]
    """Names the job's folder, report and MLflow experiment: a-z 0-9 . _ -, at most 64 characters."""
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = ("stepwise",)
    """One trial per method and seed. ``no_cot`` and ``explicit_cot`` train for as many steps as ``stepwise``."""
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = (0,)
    """Seeds of the weights, the data order and the smoothing offsets."""
    task: MultiplicationTask
    """Where problems come from."""
    model: Annotated[
        Annotated[ScratchModel, Tag("scratch")] | Annotated[PretrainedModel, Tag("pretrained")],
        Discriminator(_model_type),
    ] = ScratchModel()
    """What is trained."""
    schedule: Schedule = Schedule()
    """When tokens are removed."""
    training: Training = Training()
    """How a step is taken."""
    search: Search | None = None
    """Which configurations are tried. Default: the job's own, once for every seed."""
    evaluation: Evaluation = Evaluation()
    """How a stage is measured."""
    stability: Stability = Stability()
    """When a stage has failed, and what then."""
    resources: Resources = Resources()
    """What a trial takes."""
    tracking: Tracking = Tracking()
    """Where MLflow records it."""

    @model_validator(mode="after")
    def _no_repeats(self) -> Job:
        for key in ("methods", "seeds"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise PydanticCustomError("conflict", f"{key} names the same value twice; each is one trial")
        if self.search and "stepwise" not in self.methods:
            raise PydanticCustomError("conflict", "a search compares stepwise trials; add stepwise to methods")
        return self


def load_job(path: Path, overrides: Iterable[str] = ()) -> Job:
    """Read a TOML job file and apply dotted overrides. Raises ``InputError`` with every problem."""
    document = _read_toml(path)
    for override in overrides:
        _apply(document, override)
    return valid_job(document, str(path))


def valid_job(document: dict[str, Any], where: str) -> Job:
    """The job of a document. Raises ``InputError`` with every problem in it."""
    try:
        return Job.model_validate(document)
    except ValidationError as error:
        raise InputError(*(_problem(where, detail) for detail in _causes(error.errors()))) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """``schedule.tokens_per_stage=4`` as field and value. Raises ``InputError``."""
    document: dict[str, Any] = {}
    _apply(document, text)
    field = text.partition("=")[0].strip()
    for key in field.split("."):
        document = document[key]
    return field, document


def _read_toml(path: Path) -> dict[str, Any]:
    where = str(path)
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else f"not found (from {Path.cwd()})"
            raise InputError(Problem("CFG001", where, found, _nearby(path)))
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            Problem("CFG001", where, f"cannot be read: {error.strerror}", "check its permissions")
        ) from None
    if len(data) > MAX_JOB_BYTES:
        raise InputError(Problem("CFG026", where, f"{len(data):,} bytes", "a job file has at most 1 MiB"))
    try:
        document = tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise InputError(Problem("CFG003", where, f"byte {error.start} is not UTF-8", "save it as UTF-8")) from None
    except ValueError as error:
        raise InputError(Problem("CFG003", where, f"not TOML: {error}", "see https://toml.io")) from None
    except RecursionError:
        raise InputError(Problem("CFG026", where, "nested too deeply", "a job file has two levels")) from None
    if not document:
        raise InputError(Problem("CFG002", where, "the file is empty", "run `stepwise init` for a template"))
    return document


def _nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path(".")
    near = difflib.get_close_matches(path.name, [p.name for p in folder.glob("*.toml")], 1)
    return f'did you mean "{folder / near[0]}"?' if near else "run `stepwise init` for a template"


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not text.strip() or not all(keys):
        raise InputError(
            Problem(
                "CLI001",
                _without_password(override),
                "not an override",
                "write key=value, as schedule.tokens_per_stage=4",
            )
        )
    table = document
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(Problem("CLI001", path, f'"{key}" is a value, not a table', "name a field of a table"))
    try:
        table[keys[-1]] = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        table[keys[-1]] = text.strip()


_CODES = {
    "extra_forbidden": "CFG006",
    "missing": "CFG007",
    "finite_number": "CFG009",
    "int_type": "CFG010",
    "string_pattern_mismatch": "CFG031",
    "literal_error": "CFG019",
    "union_tag_invalid": "CFG019",
    "union_tag_not_found": "CFG019",
    "password": "CFG028",
    "conflict": "CFG029",
    "search_field": "CFG032",
}


_KINDS = {"model_type": "expected a table", "tuple_type": "expected a list"}


def _causes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the complaint that a list is empty once its wrong items are left out."""
    inner = {detail["loc"][:-1] for detail in details}
    return [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in inner]


def _problem(file: str, detail: ErrorDetails) -> Problem:
    keys = [str(key) for key in detail["loc"]]
    if len(keys) > 1 and keys[0] == "model" and keys[1] in _TAGS:
        del keys[1]
    if keys[:2] == ["search", "space"]:
        keys = keys[:3] + [key for key in keys[3:] if key not in ("choices", "range", "[key]")]
    where = f"{file}: {'.'.join(keys) or 'the job'}"
    kind = detail["type"]
    if kind == "extra_forbidden":
        return Problem(_CODES[kind], where, "unknown key", _near_miss(keys))
    if keys == ["version"]:
        return Problem("CFG030", where, f"version {_show(detail['input'])}", "this program reads version 1")
    if kind == "missing":
        return Problem(_CODES[kind], where, "missing", "`stepwise schema` describes it")
    message = _KINDS.get(kind) or (detail["msg"][0].lower() + detail["msg"][1:]).replace("tuple", "list")
    if kind not in ("conflict", "password", "search_field"):
        message += f", found {_show(detail['input'])}"
    return Problem(_CODES.get(kind, "CFG008"), where, message)


_TAGS = {
    tag for section in (ScratchModel, PretrainedModel) for tag in get_args(section.model_fields["type"].annotation)
}


def _show(value: Any) -> str:
    try:
        text = repr(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to show"
    text = _without_password(text)
    return text if len(text) <= 80 else text[:77] + "..."


def _without_password(text: str) -> str:
    return re.sub(r"(://[^/@\s]*:)[^\s]*@", r"\1***@", text)


def _near_miss(keys: list[str]) -> str:
    if keys[-1] == "trust_remote_code":
        return "code from a model's repository is never run here"
    known = _fields_at(keys[:-1])
    if keys[-1] in known:
        return "not a field of this type of model; remove it"
    near = difflib.get_close_matches(keys[-1], known, 1, cutoff=0.5)
    elsewhere = [f"{name}.{keys[-1]}" for name, fields in _SECTIONS.items() if keys[-1] in fields]
    if near:
        return f'did you mean "{near[0]}"?'
    if elsewhere:
        return f'did you mean "{elsewhere[0]}"?'
    return f"allowed: {', '.join(known)}"


def _fields_at(path: list[str]) -> list[str]:
    if path[:2] == ["search", "space"]:
        return list(Range.model_fields)
    return sorted(_SECTIONS.get(path[0], ())) if path else list(Job.model_fields)


def _section_types(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [t for argument in get_args(annotation) for t in _section_types(argument)]


_SECTIONS = {
    name: {key for section in sections for key in section.model_fields}
    for name, field in Job.model_fields.items()
    if (sections := _section_types(field.annotation))
}


def template() -> str:
    """A commented job file with every field at its default, for ``stepwise init``."""
    lines = [f"# {Job.model_fields['version'].description}", "version = 1"]
    values = {"name": '"my-job"', "methods": '["no_cot", "explicit_cot", "stepwise"]', "seeds": "[0]"}
    for key, value in values.items():
        lines += ["", *_comment(Job.model_fields[key].description), f"{key} = {value}"]
    for key, field in Job.model_fields.items():
        for section in _section_types(field.annotation)[:1]:
            table = [f"[{key}]", *_template_fields(section)]
            if field.default is None:
                table = [line if line.startswith("#") else f"# {line}" for line in table]
            lines += ["", *_comment(section.__doc__), *table]
    return "\n".join(lines) + "\n"


def _template_fields(section: type[Section]) -> Iterable[str]:
    for key, field in section.model_fields.items():
        yield from _comment(field.description)
        if field.is_required():
            yield f"{key} = {_toml(field.examples[0])}"
        elif field.default is None:
            yield f"# {key} ="
        else:
            yield f"{key} = {_toml(field.default)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())} }}"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _comment(text: str | None) -> list[str]:
    return [f"# {line.strip()}" for line in (text or "").strip().splitlines()]
