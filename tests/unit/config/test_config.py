"""Job files: what is accepted, what is refused and how, overrides, the schema and the template."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import jsonschema
import pytest

from orchestrator.config import Job, Section, job_toml, load_job
from orchestrator.errors import InputError
from orchestrator.plan import build_plan

JOBS = sorted((Path(__file__).parents[3] / "jobs").rglob("*.toml"))
SMALLEST = 'name = "x"\n[task]\ndigits = [2, 2]\n'


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(SMALLEST)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as refused:
        load_job(path, overrides)
    return str(refused.value).splitlines()


def sections(annotation: Any = Job) -> Iterator[type[Section]]:
    """Every table of the job file."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
        for field in annotation.model_fields.values():
            yield from sections(field.annotation)
    elif isinstance(annotation, UnionType) or get_args(annotation):
        for argument in get_args(annotation):
            yield from sections(argument)


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("training.learning_rte=1", "learning_rate"),
        ("schedule.token_per_stage=1", "tokens_per_stage"),
        ("model.layer=1", "layers"),
        ("shedule.tokens_per_stage=1", "schedule"),
        ("learning_rate=1", "training.learning_rate"),
        ("schedule.batch_size=1", "training.batch_size"),
    ],
)
def test_unknown_key_names_the_key_that_was_meant(job_file, override, near):
    (line,) = problems(job_file, override)
    assert line.startswith(f"error[CFG006] {job_file}: {override.split('=')[0].split('.')[0]}")
    assert line.endswith(f'did you mean "{near}"?')


def test_unknown_key_like_nothing_lists_what_is_allowed(job_file):
    (line,) = problems(job_file, "tracking.zzz=1")
    assert line.endswith("allowed: experiment, uri")


def test_every_problem_of_a_file_is_told_at_once(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'nmae = "x"\nseeds = [1, 1]\n[task]\ndigits = [2]\n[training]\nlearning_rate = -1\n'
        '[schedule]\nremoval_side = "letf"\nsmoothing_lambda = nan\n[model]\nlayers = true\n'
    )
    told = problems(path)
    assert sorted(line.split(": ")[1] for line in told) == [
        "model.layers",
        "name",
        "nmae",
        "schedule.removal_side",
        "schedule.smoothing_lambda",
        "task.digits",
        "training.learning_rate",
    ]
    assert all(line.startswith("error[CFG") for line in told)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("schedule.tokens_per_stage=4", lambda job: job.schedule.tokens_per_stage == 4),
        ("schedule.tokens_per_stage=0.5", lambda job: job.schedule.tokens_per_stage == 0.5),
        ("schedule.smoothing_lambda=inf", lambda job: job.schedule.smoothing_lambda == math.inf),
        ("schedule.removal_side=right", lambda job: job.schedule.removal_side == "right"),
        ('schedule.removal_side="right"', lambda job: job.schedule.removal_side == "right"),
        ("schedule.keep_position=true", lambda job: job.schedule.keep_position is True),
        ("training.learning_rate=1e-3", lambda job: job.training.learning_rate == 1e-3),
        ("seeds=[1, 2]", lambda job: job.seeds == (1, 2)),
        ('methods=["no_cot", "stepwise"]', lambda job: job.methods == ("no_cot", "stepwise")),
        ("task.digits=[3,1]", lambda job: job.task.digits == (3, 1)),
        ("name=other-name", lambda job: job.name == "other-name"),
        ("tracking.uri=http://host:5000/a=b", lambda job: job.tracking.uri == "http://host:5000/a=b"),
        (" schedule.stage_steps = 7 ", lambda job: job.schedule.stage_steps == 7),
        ('model={type="pretrained", name="gpt2"}', lambda job: job.model.name == "gpt2"),
    ],
)
def test_override_sets_the_field(job_file, override, value):
    assert value(load_job(job_file, [override]))


def test_overrides_apply_in_order_and_leave_the_rest(job_file):
    job = load_job(job_file, ["training.batch_size=8", "training.batch_size=16", "training.warmup_steps=5"])
    assert (job.training.batch_size, job.training.warmup_steps, job.name) == (16, 5, "x")


@pytest.mark.parametrize("override", ["schedule.tokens_per_stage", "=4", "schedule..x=4", "name.x=4", "a="])
def test_override_that_is_none_is_refused(job_file, override):
    (line,) = problems(job_file, override)
    assert line.startswith("error[CLI001]")


@pytest.mark.parametrize("path", [path for path in JOBS if "gsm8k" not in path.stem], ids=lambda path: path.stem)
def test_shipped_job_loads_and_plans(path):
    plan = build_plan(load_job(path))
    assert plan.trials
    assert all(trial.steps > 0 for trial in plan.trials)


def test_schema_is_a_json_schema_that_accepts_every_shipped_job(stepwise):
    schema = json.loads(stepwise("schema").out)
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    for path in JOBS:
        validator(schema).validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize("key", ["training", "schedule"])
def test_schema_refuses_an_unknown_key(stepwise, key):
    schema = json.loads(stepwise("schema").out)
    document = tomllib.loads(SMALLEST) | {key: {"speling": 1}}
    with pytest.raises(jsonschema.ValidationError, match="speling"):
        jsonschema.validate(document, schema)


def test_init_writes_a_file_of_defaults_that_plans(stepwise, tmp_path):
    path = tmp_path / "new.toml"
    assert stepwise("init", path).code == 0
    job = load_job(path)
    for name, field in Job.model_fields.items():
        if name not in ("name", "methods", "seeds", "task"):
            assert getattr(job, name) == field.get_default(), name
    assert job.task == type(job.task)(digits=job.task.digits)
    assert stepwise("plan", path, "--store", tmp_path / "store").code == 0


def test_init_file_names_every_field_of_every_first_section(stepwise, tmp_path):
    stepwise("init", tmp_path / "new.toml")
    text = (tmp_path / "new.toml").read_text()
    for name, field in Job.model_fields.items():
        for section in list(sections(field.annotation))[:1]:
            assert f"[{name}]" in text
            assert all(f"{key} =" in text for key in section.model_fields)


def test_init_never_replaces_a_file(stepwise, job_file):
    finished = stepwise("init", job_file)
    assert (finished.code, job_file.read_text()) == (2, SMALLEST)


@pytest.mark.parametrize("section", dict.fromkeys(sections()), ids=lambda section: section.__name__)
def test_every_field_has_a_description(section):
    assert section.__doc__
    assert [key for key, field in section.model_fields.items() if not field.description] == []


def test_byte_order_mark_and_crlf_are_accepted(tmp_path):
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert load_job(path).name == "x"


@pytest.mark.parametrize("written", ["inf", '"inf"', "+inf"])
def test_smoothing_lambda_may_be_infinite(job_file, written):
    assert load_job(job_file, [f"schedule.smoothing_lambda={written}"]).schedule.smoothing_lambda == math.inf


def test_job_survives_the_way_to_a_worker_as_json(job_file):
    job = load_job(job_file, ["schedule.smoothing_lambda=inf", "seeds=[3, 4]", 'model={type="pretrained", name="m"}'])
    assert Job.model_validate_json(job.model_dump_json()) == job


OPTUNA = SMALLEST + (
    '[model]\ntype = "pretrained"\nname = "a\\"b"\n[search]\ntype = "optuna"\nconfigurations = 2\n'
    "[search.space]\ntraining.learning_rate = { low = 1e-4, high = 1e-3, log = true }\n"
    'schedule.smoothing_lambda = [4, inf]\nschedule.removal_side = ["left", "right"]\n'
)


@pytest.mark.parametrize(
    "text", [*(path.read_text() for path in JOBS), OPTUNA], ids=[*(p.stem for p in JOBS), "optuna"]
)
def test_job_written_as_a_file_is_the_same_job(tmp_path, text):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text(text)
    job = load_job(first)
    second.write_text(job_toml(job))
    assert load_job(second) == job


def test_reference_has_every_field_of_every_table(stepwise):
    printed = stepwise("schema", "--markdown").out
    rows = {line.split("`")[1] for line in printed.splitlines() if line.startswith("| `")}
    fields = {name for section in {Job, *sections()} for name, f in section.model_fields.items() if name != "space"}
    assert fields - rows <= {
        "task",
        "model",
        "schedule",
        "training",
        "search",
        "evaluation",
        "icot_kd",
        "stability",
        "resources",
        "tracking",
        "low",
        "high",
        "log",
    }
    assert "| `learning_rate` | number > 0, ≤ 1 | `5e-05` | The optimizer's rate" in printed
    assert '## `[model]` with `type = "pretrained"`' in printed
