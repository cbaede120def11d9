"""The job file's top level."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.config.fields import (
    Count,
    Evaluation,
    Gsm8kTask,
    IcotKd,
    Method,
    MultiplicationTask,
    PretrainedModel,
    Resources,
    Schedule,
    ScratchModel,
    Section,
    Seed,
    Stability,
    TextTask,
    Tracking,
    Training,
)
from orchestrator.config.search import Search

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"


Task = MultiplicationTask | TextTask | Gsm8kTask


def _type_or(default: str) -> Discriminator:
    """Return what tells the type of a table: its own word, or the default."""
    return Discriminator(lambda t: t.get("type", default) if isinstance(t, dict) else getattr(t, "type", None))


class Job(Section):
    """The work of one TOML file: trials of one task and model, cut into stages."""

    version: Literal[1] = 1
    """Version of the job file format."""
    name: Annotated[str, Field(pattern=NAME)]
    """The name of the job's folder, report and MLflow experiment: a-z 0-9 . _ -, at most 64 characters."""
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = ("stepwise",)
    """One trial per method and seed. ``no_cot`` and ``explicit_cot`` train for as many steps as ``stepwise``;
    ``icot_kd``, which internalizes everything at once, for as many as its own table says."""
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = (0,)
    """Seeds of the weights, the data order and the smoothing offsets."""
    max_steps: Count | None = None
    """Stop every trial after so many optimizer steps, to try a long job out. A stage that is cut short is a stage of
    its own: nothing of it counts for the whole one."""
    task: Annotated[
        Annotated[MultiplicationTask, Tag("multiplication")]
        | Annotated[TextTask, Tag("text")]
        | Annotated[Gsm8kTask, Tag("gsm8k")],
        _type_or("multiplication"),
    ]
    """The source of problems."""
    model: Annotated[
        Annotated[ScratchModel, Tag("scratch")] | Annotated[PretrainedModel, Tag("pretrained")],
        _type_or("scratch"),
    ] = ScratchModel()
    """The model that is trained."""
    schedule: Schedule = Schedule()
    """When tokens are removed."""
    icot_kd: IcotKd = IcotKd()
    """The parts of ICoT-KD."""
    training: Training = Training()
    """How a step is taken."""
    search: Search | None = None
    """Which configurations are tried. Default: the job's own, once for every seed."""
    evaluation: Evaluation = Evaluation()
    """How a stage is measured."""
    stability: Stability = Stability()
    """When a stage has failed, and what then."""
    resources: Resources = Resources()
    """The resources of a trial."""
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
