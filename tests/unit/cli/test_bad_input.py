"""Bad input, row by row: exit code 2, the place and the fix named, no traceback, nothing created, no secret shown."""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.config import Job, load_job
from orchestrator.errors import InputError, StepwiseError
from orchestrator.plan import build_plan

GOOD = 'name = "x"\n[task]\ndigits = [2, 2]\n'
SECRET = "hunter2"  # noqa: S105
URI = f"https://me:{SECRET}@mlflow.example.org"


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def job(section: str = "", line: str = "", top: str = 'name = "x"', task: str = "digits = [2, 2]") -> str:
    """A job file with one line in one table."""
    tables = {"task": task, section: line} if section else {"task": task}
    return top + "".join(f"\n[{table}]\n{text}" for table, text in tables.items()) + "\n"


JOB_FILES: dict[str, tuple[str | bytes, list[str]]] = {
    "02 empty": ("", ["CFG002", "job.toml", "stepwise init"]),
    "02 only comments": ("# nothing\n\n# yet\n", ["CFG002"]),
    "03 syntax": ('name = "x"\n[task\ndigits = [2, 2]\n', ["CFG003", "line 2"]),
    "03 no value": ('name = "x"\nseeds =\n', ["CFG003", "line 2"]),
    "03 yaml": ("name: x\ntask:\n  digits: [2, 2]\n", ["CFG003", "line 1"]),
    "03 json": ('{"name": "x"}', ["CFG003", "line 1"]),
    "03 not utf-8": (b'name = "\xff"\n', ["CFG003", "byte 8", "UTF-8"]),
    "03 utf-16": (GOOD.encode("utf-16"), ["CFG003", "UTF-8"]),
    "03 binary": (bytes(range(256)), ["CFG003"]),
    "03 integer of 5000 digits": (GOOD + "train_examples = " + "1" * 5000, ["CFG003", "digits"]),
    "04 list at the top": ("[1, 2]\n", ["CFG003"]),
    "04 value where a table belongs": (job(top='name = "x"\ntraining = 3'), ["training", "expected a table"]),
    "05 key twice": ('name = "x"\nname = "y"\n', ["CFG003", "overwrite", "line 2"]),
    "05 table twice": (GOOD + "[task]\n", ["CFG003", "twice", "line 4"]),
    "06 unknown key": (job("training", "learning_rte = 1"), ["CFG006", "training.learning_rte", "learning_rate"]),
    "06 unknown table": (job("trainning", "batch_size = 1"), ["CFG006", "trainning", '"training"']),
    "06 key of another model": (
        job("model", 'type = "pretrained"\nname = "m"\nlayers = 2'),
        ["CFG006", "model.layers"],
    ),
    "06 nothing given": ('name = "x"\n', ["CFG007", "task", "missing"]),
    "07 number as text": (job("training", 'learning_rate = "5e-5"'), ["training.learning_rate", "number", "5e-5"]),
    "08 rate zero": (job("training", "learning_rate = 0"), ["training.learning_rate", "greater than 0", "found 0"]),
    "08 rate negative": (job("training", "learning_rate = -5e-5"), ["training.learning_rate", "-5e-05"]),
    "08 optimizer of another name": (job("training", 'optimizer = "adam"'), ["training.optimizer", "adamw", "muon"]),
    "08 rate of ten with muon": (job("training", 'optimizer = "muon"\nlearning_rate = 10'), ["training.learning_rate"]),
    "08 rate too high for muon": (
        job("training", 'optimizer = "muon"\nlearning_rate = 0.5'),
        ["training", "learning_rate 0.5", "muon", "at most 0.1"],
    ),
    "08 muon on shares": (
        job("training", 'optimizer = "muon"\n[resources]\nworkers = 2\nshard = true'),
        ["CFG037", "training.optimizer", "shard"],
    ),
    "08 rate above one": (job("training", "learning_rate = 5"), ["training.learning_rate", "less than or equal to 1"]),
    "09 rate nan": (job("training", "learning_rate = nan"), ["CFG009", "training.learning_rate", "finite", "nan"]),
    "09 decay inf": (job("training", "weight_decay = inf"), ["CFG009", "training.weight_decay", "inf"]),
    "09 stage inf": (job("schedule", "stage_epochs = inf"), ["CFG009", "schedule.stage_epochs"]),
    "10 boolean as integer": (job(top='name = "x"\nseeds = [true]'), ["CFG010", "seeds.0", "integer", "True"]),
    "10 boolean as number": (job("training", "beta1 = false"), ["training.beta1", "number"]),
    "10 integer as boolean": (job("training", "reset_optimizer = 1"), ["training.reset_optimizer", "boolean"]),
    "11 leading zero": ('name = "x"\nseeds = [010]\n', ["CFG003", "line 2"]),
    "12 seed float": (job(top='name = "x"\nseeds = [1e30]'), ["CFG010", "seeds.0", "1e+30"]),
    "12 seed negative": (job(top='name = "x"\nseeds = [-1]'), ["seeds.0", "greater than or equal to 0"]),
    "12 seed too large": (job(top=f'name = "x"\nseeds = [{2**63}]'), ["seeds.0", "less than or equal to"]),
    "12 no seed": (job(top='name = "x"\nseeds = []'), ["seeds", "at least 1 item"]),
    "12 seed twice": (job(top='name = "x"\nseeds = [1, 1]'), ["CFG029", "seeds"]),
    "13 delta zero": (job("schedule", "tokens_per_stage = 0"), ["schedule.tokens_per_stage", "found 0"]),
    "13 delta negative": (job("schedule", "tokens_per_stage = -8"), ["schedule.tokens_per_stage", "-8"]),
    "14 delta text": (job("schedule", 'tokens_per_stage = "8"'), ["schedule.tokens_per_stage", "number"]),
    "14 steps fractional": (job("schedule", "stage_steps = 8.5"), ["CFG010", "schedule.stage_steps", "8.5"]),
    "15 delta above the CoT": (job("schedule", "tokens_per_stage = 400"), ["CFG015", "400", "(8 tokens)"]),
    "16 more than a token a step": (
        job("schedule", "tokens_per_stage = 8\nstage_steps = 4"),
        ["CFG016", "schedule.tokens_per_stage", "4 steps"],
    ),
    "16 stage of no step": (job("schedule", "stage_epochs = 1e-9"), ["CFG016", "schedule.tokens_per_stage"]),
    "17 lambda zero": (job("schedule", "smoothing_lambda = 0"), ["schedule.smoothing_lambda", "greater than 0"]),
    "18 lambda negative": (job("schedule", "smoothing_lambda = -1"), ["schedule.smoothing_lambda", "-1"]),
    "18 lambda -inf": (job("schedule", "smoothing_lambda = -inf"), ["schedule.smoothing_lambda", "-inf"]),
    "18 lambda nan": (job("schedule", "smoothing_lambda = nan"), ["schedule.smoothing_lambda", "nan"]),
    "19 lambda word": (job("schedule", 'smoothing_lambda = "none"'), ["schedule.smoothing_lambda", "none"]),
    "20 side": (job("schedule", 'removal_side = "letf"'), ["CFG019", "schedule.removal_side", "'left' or 'right'"]),
    "20 schedule": (job("schedule", 'type = "liner"'), ["CFG019", "schedule.type", "'linear'"]),
    "20 method": (job(top='name = "x"\nmethods = ["step"]'), ["CFG019", "methods.0", "'stepwise'"]),
    "20 method twice": (job(top='name = "x"\nmethods = ["no_cot", "no_cot"]'), ["CFG029", "methods"]),
    "20 no method": (job(top='name = "x"\nmethods = []'), ["methods", "at least 1 item"]),
    "20 precision": (job("training", 'precision = "fp16"'), ["CFG019", "training.precision", "'bf16'"]),
    "20 model type": (job("model", 'type = "scrach"'), ["CFG019", "model", "scrach"]),
    "21 remove_all_beyond zero": (job("schedule", "remove_all_beyond = 0"), ["schedule.remove_all_beyond"]),
    "22 target zero": (job("stability", "min_exact_match = 0"), ["stability.min_exact_match", "greater than 0"]),
    "22 target one": (job("stability", "min_exact_match = 1"), ["stability.min_exact_match", "less than 1"]),
    "23 restarts negative": (job("stability", "max_restarts_per_stage = -1"), ["stability.max_restarts_per_stage"]),
    "23 compute below one run": (job("stability", "max_compute = 0.5"), ["stability.max_compute", "0.5"]),
    "23 consolidation negative": (job("schedule", "consolidation_stages = -1"), ["schedule.consolidation_stages"]),
    "23 consolidation endless": (
        job("schedule", f"consolidation_stages = {10**12}"),
        ["schedule.consolidation_stages"],
    ),
    "23 pretraining negative": (job("schedule", "pretrain_steps = -1"), ["schedule.pretrain_steps"]),
    "23 epochs beyond any float": (job("schedule", "stage_epochs = 1e308"), ["schedule.stage_epochs"]),
    "24 batch zero": (job("training", "batch_size = 0"), ["training.batch_size", "greater than or equal to 1"]),
    "24 batch above the data": (job("training", "batch_size = 100000"), ["CFG023", "training.batch_size", "100000"]),
    "24 batch not divisible": (
        job("training", "batch_size = 7\n[resources]\nworkers = 2"),
        ["CFG039", "training.batch_size", "2 workers"],
    ),
    "24 more evaluated than there is": (job("evaluation", "examples = 5000"), ["CFG023", "evaluation.examples", "405"]),
    "24 no worker": (job("resources", "workers = 0"), ["resources.workers"]),
    "24 two gpus a worker": (job("resources", "gpus_per_worker = 2"), ["resources.gpus_per_worker"]),
    "25 heads do not divide": (job("model", "width = 100\nheads = 3"), ["CFG029", "model", "100", "3"]),
    "25 no layer": (job("model", "layers = 0"), ["model.layers"]),
    "25 pretrained without name": (job("model", 'type = "pretrained"'), ["CFG007", "model.name", "missing"]),
    "26 too large": (GOOD + "#" * (1 << 20), ["CFG026", "1 MiB"]),
    "26 too deep": ("a = " + "[" * 50_000, ["CFG040", "deep"]),
    "26 deep keys": ("name." + "a." * 3000 + "a = 1\n[task]\ndigits = [2, 2]\n", ["name"]),
    "28 trust_remote_code": (
        job("model", 'type = "pretrained"\nname = "m"\ntrust_remote_code = true'),
        ["CFG006", "model.trust_remote_code", "never run"],
    ),
    "29 password": (job("tracking", f'uri = "{URI}"'), ["CFG028", "tracking", "MLFLOW_TRACKING_PASSWORD"]),
    "29 password with the table forgotten": (job(top=f'name = "x"\ntracking = "{URI}"'), ["tracking", "table"]),
    "29 password under another key": (job("tracking", f'url = "{URI}"'), ["CFG006", "tracking.url", '"uri"']),
    "29 password in a list": (job("tracking", f'uri = ["{URI}"]'), ["tracking.uri", "string"]),
    "30 two lengths of a stage": (
        job("schedule", "stage_epochs = 1\nstage_steps = 5"),
        ["CFG029", "schedule", "stage_epochs", "stage_steps"],
    ),
    "30 two lengths of pretraining": (
        job("schedule", "pretrain_epochs = 1\npretrain_steps = 5"),
        ["CFG029", "pretrain_epochs", "pretrain_steps"],
    ),
    "30 reference in steps": (
        job("schedule", 'type = "reference"\nstage_steps = 5'),
        ["CFG029", "reference", "stage_epochs"],
    ),
    "30 reference in part of an epoch": (
        job("schedule", 'type = "reference"\nstage_epochs = 0.5'),
        ["CFG029", "reference", "whole"],
    ),
    "30 cooldown without consolidation": (job("schedule", "cooldown_stages = 1"), ["CFG029", "cooldown_stages"]),
    "31 version": (job(top='version = 9\nname = "x"'), ["CFG030", "version 9", "reads version 1"]),
    "31 version as text": (job(top='version = "1"\nname = "x"'), ["CFG030", "reads version 1"]),
    **{
        f"32 name {name[:12]!r}": (job(top=f"name = {json.dumps(name)}"), ["CFG031", "job.toml: name"])
        for name in ("../x", "a/b", "a\x00b", "x" * 300, "", "CON", ".hidden", "a b", "x\n", "nаme", "-x")
    },
    "34 no example": (job(task="digits = [2, 2]\ntrain_examples = 0"), ["task.train_examples"]),
    "34 no digits": (job(task=""), ["CFG007", "task.digits", "missing"]),
    "35 digits as text": (job(task='digits = "4x4"'), ["task.digits", "4x4"]),
    "35 one factor": (job(task="digits = [4]"), ["task.digits", "at least 2 items"]),
    "35 three factors": (job(task="digits = [4, 4, 4]"), ["task.digits", "at most 2 items"]),
    "37 no digit": (job(task="digits = [0, 2]"), ["task.digits.0", "greater than or equal to 1"]),
    "37 too many digits": (job(task="digits = [2, 400]"), ["task.digits.1", "less than or equal to"]),
    "37 fractional digits": (job(task="digits = [2, 2.5]"), ["CFG010", "task.digits.1", "2.5"]),
    "42 unknown task": (job(task='type = "multiplikation"\ndigits = [2, 2]'), ["CFG019", "task.type"]),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPWISE_STORE", raising=False)
    return tmp_path


def assert_refused(
    here: Path, stepwise: Callable[..., Any], words: list[str], expected: list[str], code: int = 2
) -> None:
    before = tree(here)
    finished = stepwise(*words)
    assert finished.code == code, finished.err
    for word in expected:
        assert word in finished.err
    assert finished.err.startswith("error[")
    assert "Traceback" not in finished.err
    assert SECRET not in finished.err + finished.out
    assert not finished.out
    assert tree(here) == before


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(("content", "expected"), JOB_FILES.values(), ids=JOB_FILES)
def test_bad_job_file_is_refused_with_its_place(here, stepwise, verb, content, expected):
    (here / "job.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(here, stepwise, [verb, "job.toml"], expected)


ARGUMENTS: dict[str, tuple[str, list[str]]] = {
    "01 missing": ("plan job.tml", ["CFG001", "job.tml", "not found", '"job.toml"']),
    "01 missing in a missing folder": ("plan jobs/none.toml", ["CFG001", "jobs/none.toml", "not found"]),
    "01 folder": ("plan folder", ["CFG001", "folder", "is a folder"]),
    "01 name too long": ("plan " + "x" * 5000, ["CFG001", "too long"]),
    "01 no file": ("plan", ["CLI002", "job"]),
    "33 override without value": ("plan job.toml training.learning_rate=", ["CLI001", "key=value"]),
    "33 override without equals": ("plan job.toml learning_rate", ["CLI001", "learning_rate", "key=value"]),
    "33 override without key": ("plan job.toml =4", ["CLI001", "key=value"]),
    "33 unknown path": ("plan job.toml training.rate=1", ["CFG006", "training.rate"]),
    "33 unknown table": ("plan job.toml optimizer.lr=1", ["CFG006", "optimizer"]),
    "33 path through a value": ("plan job.toml name.first=1", ["CLI001", '"name" is a value']),
    "33 wrong type": ("plan job.toml training.batch_size=big", ["CFG010", "training.batch_size", "big"]),
    "33 integer of 5000 digits": ("plan job.toml training.batch_size=" + "1" * 5000, ["CFG010", "batch_size"]),
    "33 password": (f"plan job.toml tracking.uri={URI}", ["CFG028", "tracking"]),
    "33 password not set": (f"plan job.toml {URI}", ["CLI001"]),
    "33 password through a value": (f"plan job.toml name.x={URI}", ["CLI001"]),
    "unknown verb": ("trian job.toml", ["CLI002", "trian"]),
    "unknown option": ("plan job.toml --jsn", ["CLI002", "--jsn"]),
    "limit negative": ("data job.toml --limit -1", ["CLI002", "--limit"]),
    "limit zero": ("data job.toml --limit 0", ["CLI002", "--limit"]),
    "limit text": ("data job.toml --limit ten", ["CLI002", "--limit"]),
    "split": ("data job.toml --split valid", ["CLI002", "--split", "validation"]),
    "port": ("ui --port 99999", ["CLI002", "--port"]),
    "init over a file": ("init job.toml", ["CLI003", "job.toml", "exists already"]),
    "init over a folder": ("init folder", ["CLI003", "folder"]),
    "init in a missing folder": ("init none/job.toml", ["CLI009", "none/job.toml", "No such"]),
    "init name too long": ("init " + "x" * 300, ["CLI009", "too long"]),
    "63 plan, store is a file": ("plan job.toml --store job.toml", ["--store", "job.toml", "is a file"]),
    "63 run, store is a file": ("run job.toml --store job.toml", ["--store", "job.toml", "is a file"]),
    "63 report, store is a file": ("report job.toml --store job.toml", ["--store", "job.toml", "is a file"]),
    "63 track, store is a file": ("track job.toml --store job.toml", ["--store", "job.toml", "is a file"]),
    "63 fsck, store is a file": ("fsck --store job.toml", ["--store", "job.toml", "is a file"]),
    "63 ui, store is a file": ("ui --store job.toml", ["--store", "job.toml", "is a file"]),
    "63 run, store below a file": ("run job.toml --store job.toml/store", ["STO003", "job.toml", "is a file"]),
    "63 run, where nobody may write": ("run job.toml --store /sys/stepwise", ["/sys"]),
    "67 plan, store is a bucket": ("plan job.toml --store s3://bucket/x", ["--store", "URL", "folder"]),
    "67 run, store is a bucket": ("run job.toml --store s3://bucket/x", ["--store", "URL", "folder"]),
    "68 submit, no port": ("submit job.toml --address 10.0.0.5", ["CLU002", "--address", "http://HOST:PORT"]),
    "68 submit, ray//": ("submit job.toml --address ray//x", ["CLU002", "--address", "http://HOST:PORT"]),
    "68 submit, no cluster": ("submit job.toml", ["CLI002", "--cluster", "--address"]),
    "74 run, nobody at the address": (
        "run job.toml --address 127.0.0.1:1 --allow-unauthenticated",
        ["CLU003", "127.0.0.1:1", "refused", "RAY_ADDRESS"],
    ),
    "74 run, address is a URL": (
        f"run job.toml --address ray://me:{SECRET}@127.0.0.1:10001 --allow-unauthenticated",
        ["CLU017", "--address", "HOST:PORT"],
    ),
    "74 run, no such port": ("run job.toml --address ::1:99999 --allow-unauthenticated", ["CLU003", "99999"]),
    "fsck without a store": ("fsck --store none", ["STO001", "none", "no such store"]),
    "ui without a store": ("ui --store none", ["STO001", "none", "no such store"]),
    "report without a store": ("report job.toml --store none", ["STO0", "none", "run"]),
    "track without a store": ("track job.toml --store none", ["STO0", "none", "run"]),
    "report of a job never run": ("report job.toml --store folder", ["STO012", "folder", "run the job first"]),
    "model folder missing": (
        'run job.toml model={type="pretrained",name="/no/such/folder"} --store none',
        ["MOD015", "model.name", "/no/such/folder"],
    ),
    "model folder empty": (
        'run job.toml model={type="pretrained",name="folder"} --store none',
        ["MOD003", "model.name", "folder"],
    ),
    "more cores than there are": ("run job.toml resources.workers=32 resources.cpus_per_worker=999", ["CLU009"]),
}


@pytest.mark.parametrize(("words", "expected"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_bad_argument_is_refused_with_its_name(here, stepwise, words, expected):
    (here / "job.toml").write_text(GOOD)
    (here / "folder").mkdir()
    assert_refused(here, stepwise, words.split(), expected)


def test_store_named_by_the_environment_is_checked_too(here, stepwise, monkeypatch):
    (here / "job.toml").write_text(GOOD)
    monkeypatch.setenv("STEPWISE_STORE", "job.toml")
    assert_refused(here, stepwise, ["plan", "job.toml"], ["STEPWISE_STORE", "is a file"])


def test_stray_ray_address_is_refused_before_anything_is_made(here, stepwise, monkeypatch):
    """Row 74: nobody there; somebody there, and this user has no cluster's token."""
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    (here / "job.toml").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert_refused(here, stepwise, ["run", "job.toml"], ["CLU004", ".ray/auth_token", "no token"])
    assert_refused(here, stepwise, ["run", "job.toml"], ["CLU003", address, "RAY_ADDRESS"])


def test_store_that_everybody_can_write_is_refused(here, stepwise):
    (here / "job.toml").write_text(GOOD)
    (here / "open").mkdir()
    (here / "open").chmod(0o777)
    assert_refused(here, stepwise, ["run", "job.toml", "--store", "open"], ["STO008", "open", "chmod o-w"])


@pytest.mark.parametrize("locked", ["store", "store/stages", "store/jobs"])
def test_store_that_may_not_be_written_is_refused_with_the_folder(here, stepwise, monkeypatch, locked):
    """The kernel's word for it, as it is for another user or on a read-only disk: root may write everything."""
    (here / "job.toml").write_text(GOOD)
    for name in ("stages", "jobs"):
        (here / "store" / name).mkdir(parents=True)
    access = os.access
    refused = here / locked
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused and access(path, mode))
    assert_refused(here, stepwise, ["run", "job.toml", "--store", "store"], ["STO004", locked, "--store"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
@pytest.mark.parametrize(
    ("words", "expected"),
    [("plan secret.toml", ["CFG001", "permissions"]), ("run job.toml --store locked/store", ["STO004", "locked"])],
)
def test_what_may_not_be_read_or_written_is_named(here, stepwise, words, expected):
    (here / "job.toml").write_text(GOOD)
    (here / "secret.toml").write_text(GOOD)
    (here / "secret.toml").chmod(0)
    (here / "locked").mkdir(mode=0o500)
    finished = stepwise(*words.split())
    assert finished.code == 2
    assert all(word in finished.err for word in expected)


@pytest.mark.parametrize("verb", ["plan", "report", "track"])
def test_every_problem_is_one_line(here, stepwise, verb):
    (here / "job.toml").write_text("seeds = [-1]\n[task]\ndigits = [0, 0]\n[training]\nlr = 1\n")
    finished = stepwise(verb, "job.toml")
    assert finished.code == 2
    assert len(finished.err.splitlines()) == 5
    assert all(line.startswith("error[CFG") for line in finished.err.splitlines())


def test_help_of_every_verb_is_shown(stepwise):
    verbs = re.findall(r"^  (\w+)  ", stepwise("--help").out.split("Commands:")[1], re.MULTILINE)
    assert {"init", "plan", "run", "report", "data", "fsck"} <= set(verbs)
    for verb in verbs:
        finished = stepwise(verb, "--help")
        assert finished.code == 0
        assert "Usage" in finished.out


KEYS = [*Job.model_fields, "type", "digits", "layers", "width", "heads", "stage_steps", "tokens_per_stage", "uri"]
scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(0, 20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["scratch", "pretrained", "reference", "linear", "multiplication", "right", "x"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)


def toml(value: Any) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else f"{value:+}".replace("+nan", "nan")
    return json.dumps(value).replace("\x7f", "\\u007f")


def loaded_or_refused(path: Path, *overrides: str) -> bool:
    """Whether a job loads and plans; any exception but our own is a failure."""
    try:
        build_plan(load_job(path, overrides))
    except StepwiseError as refused:
        assert isinstance(refused, InputError)
        assert str(refused).startswith("error[")
        return False
    return True


a_few = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@a_few
@given(documents)
def test_any_document_is_a_job_or_refused(tmp_path, document):
    path = tmp_path / "job.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in document.items()))
    loaded_or_refused(path)


@a_few
@given(st.dictionaries(st.sampled_from(["schedule", "training", "model", "resources", "evaluation"]), values))
def test_any_table_in_a_good_job_is_accepted_or_refused(tmp_path, tables):
    path = tmp_path / "job.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in tables.items()) + GOOD)
    loaded_or_refused(path)


LEAVES = [
    f"{name}.{key}"
    for name in ("schedule", "training", "model", "resources", "evaluation")
    for key in type(Job.model_fields[name].get_default()).model_fields
]


@a_few
@given(st.lists(st.tuples(st.sampled_from(LEAVES), scalars), max_size=4))
@example([("schedule.type", "reference"), ("schedule.stage_epochs", 1e-9)])
@example([("schedule.type", "reference"), ("schedule.pretrain_epochs", 0.5)])
@example([("schedule.tokens_per_stage", 0.001)])
def test_any_overrides_of_a_good_job_are_accepted_or_refused(tmp_path, overrides):
    path = tmp_path / "job.toml"
    path.write_text(GOOD)
    loaded_or_refused(path, *(f"{key}={toml(value)}" for key, value in overrides))


@a_few
@given(st.text(max_size=30))
def test_any_text_as_an_override_is_accepted_or_refused(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(GOOD)
    loaded_or_refused(path, text)


@a_few
@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_refused(tmp_path, content):
    path = tmp_path / "job.toml"
    path.write_bytes(content)
    loaded_or_refused(path)
