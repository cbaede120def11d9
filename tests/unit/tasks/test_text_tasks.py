"""GSM8K and own data: the same from every format, refused with file and line, trained with CoTs of all lengths."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import Evaluation, Gsm8kTask, Job, ScratchModel, TextTask
from orchestrator.method.evaluate import Evaluator, Removed
from orchestrator.method.models.hub import load_tokenizer
from orchestrator.method.models.model import initial_model, load_weights, save_weights
from orchestrator.method.removal import IGNORED, Batch, cut, without_long
from orchestrator.method.train import by_length
from orchestrator.plan import build_plan
from orchestrator.store import Manifest, StageStore
from orchestrator.tasks import Example, make_task
from orchestrator.trials.data import JobData, prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLES = [
    Example("3 apples and 4 more?", "<<3+4=7>>", "7"),
    Example("Half  of 9?", "", "4.5"),
    Example("1000 twice?", "<<1000*2=2000>> <<2000+0=2000>>", "2000"),
]
SMALL = {"model": {"layers": 1, "width": 16, "heads": 2}, "evaluation": {"speed_examples": 1, "speed_batch": 2}}


def written(folder: Path, examples: list[Example] = EXAMPLES) -> dict[str, dict[str, Any]]:
    """The examples in every format, and the task table that reads each."""
    folder.mkdir(exist_ok=True)
    rows = [{"q": e.question, "steps": e.cot.split(), "result": e.answer} for e in examples]
    (folder / "x.txt").write_text("\n\n".join(e.line for e in examples))
    (folder / "x.jsonl").write_text("".join(json.dumps(row | {"more": None}) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    (folder / "set").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "set" / "train.parquet")
    columns = {"question_column": "q", "cot_column": "steps", "answer_column": "result"}
    return {
        name: {"train": str(folder / name), "validation": str(folder / name), **columns}
        for name in ("x.txt", "x.jsonl", "x.parquet")
    } | {"set": {"dataset": str(folder / "set"), "train": "train", "validation": "train[:3]", **columns}}


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "set"])
def test_examples_are_the_same_from_every_format(tmp_path: Path, name: str) -> None:
    task = make_task(TextTask(**written(tmp_path)[name]))
    assert list(task.examples("train")) == list(task.examples("validation")) == EXAMPLES
    reference = make_task(Gsm8kTask(train=str(tmp_path / "x.txt"), validation=str(tmp_path / "x.txt")))
    assert list(reference.examples("train")) == EXAMPLES
    assert task.size("train") == 3
    assert task.cot_symbols == 2


def keys(task: dict[str, Any], **tables: Any) -> list[str]:
    job = Job.model_validate(
        {"name": "x", "task": task, "schedule": {"tokens_per_stage": 1, "stage_steps": 2}} | tables | SMALL,
    )
    job = job.model_copy(update={"training": job.training.model_copy(update={"batch_size": 2})})
    return [stage.key for stage in build_plan(job).trials[0].stages]


def test_stage_is_the_same_work_from_every_format_and_place_and_another_with_other_examples(tmp_path: Path) -> None:
    tables = written(tmp_path / "a")
    text = keys({"type": "text", **tables["x.jsonl"]})
    assert text == keys({"type": "text", **tables["x.parquet"]}) == keys({"type": "text", **tables["set"]})
    assert text == keys({"type": "text", **written(tmp_path / "b")["x.jsonl"]})
    assert text != keys({"type": "text", "answers": "number", **tables["x.jsonl"]})
    other = written(tmp_path / "c", [*EXAMPLES[:2], EXAMPLES[2]._replace(answer="2001")])
    assert not set(text) & set(keys({"type": "text", **other["x.jsonl"]}))


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    table = {"type": "text", **written(tmp_path)["x.jsonl"]}
    before = keys(table)
    written(tmp_path, EXAMPLES[::-1])
    assert keys(table) != before


def test_published_gsm8k_has_steps_and_answer_in_one_column(tmp_path: Path) -> None:
    row = {"question": "Why?", "answer": "She has 2*3=<<2*3=6>>6.\nSo 6+1000=<<6+1000=1006>>1,006\n#### 1,006"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    files = {"train": str(tmp_path / "x.jsonl"), "validation": str(tmp_path / "x.jsonl")}
    (written,) = make_task(Gsm8kTask(**files)).examples("train")
    assert written == ("Why?", row["answer"].split("\n####")[0], "1006")
    assert written.line.count("\n") == 0
    (equations,) = make_task(Gsm8kTask(**files, cot="equations")).examples("train")
    assert equations == ("Why?", "<<2*3=6>> <<6+1000=1006>>", "1006")


def test_released_gsm8k_is_read_as_it_stands(released_data: Path) -> None:
    files = {"train": str(released_data / "gsm8k/test.txt"), "validation": str(released_data / "gsm8k/valid.txt")}
    task = make_task(Gsm8kTask(**files))
    assert (task.size("train"), task.size("validation")) == (1319, 500)
    assert sum(not example.cot for example in task.examples("train")) == 18
    assert sum(not example.cot for example in task.examples("validation")) == 6
    lines = (released_data / "gsm8k/valid.txt").read_text().splitlines()
    assert [example.line for example in task.examples("validation")] == [
        line.partition("#### ")[0].replace(" ||", "||") + "#### " + line.partition("#### ")[2].replace(",", "")
        for line in lines
    ]
    assert task.place("validation", 90).endswith("valid.txt:91")
    assert task.identity == make_task(Gsm8kTask(**files, cot="equations")).identity


@pytest.mark.parametrize(
    ("predicted", "right"),
    [
        *((text, True) for text in ("18", "18.00", "$18", "18.", "+18")),
        *((text, False) for text in ("-18", "18x", "", "1_8", "1e1", "nan", "19")),
    ],
)
def test_number_is_right_however_it_is_written(gsm8k: Path, predicted: str, right: bool) -> None:
    task = make_task(Gsm8kTask(train=str(gsm8k / "train.txt"), validation=str(gsm8k / "valid.txt")))
    assert task.is_correct(predicted, "18") is right


GOOD_LINE = "Why?||<<1+1=2>> #### 2\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:9857d1bb\nsize 87805358\n"
BAD_DATA: dict[str, tuple[str, str | bytes | None, list[str]]] = {
    "missing file": ("x.txt", None, ["DAT001", "task.train", "x.txt not found"]),
    "unknown format": ("x.csv", "a,b,c", ["DAT003", "task.train", ".jsonl", ".parquet", ".txt"]),
    "git lfs pointer": ("x.txt", LFS, ["DAT002", "x.txt", "git lfs pull"]),
    "git lfs pointer for parquet": ("x.parquet", LFS, ["DAT002", "x.parquet", "git lfs pull"]),
    "not parquet": ("x.parquet", "hello", ["DAT017", "x.parquet", "not a Parquet file"]),
    "not utf-8": ("x.txt", GOOD_LINE.encode() + b"\xff||1 #### 2", ["DAT004", "x.txt:2", "UTF-8"]),
    "not json": ("x.jsonl", '{"question": 1', ["DAT016", "x.jsonl:1", "not JSON"]),
    "not an object": ("x.jsonl", "[1]", ["DAT016", "x.jsonl:1", "object"]),
    "no column": ("x.jsonl", '{"question": "q", "reply": "1"}', ["DAT006", "x.jsonl:1", "'reply'", "answer_column"]),
    "nothing in a column": ("x.jsonl", '{"question": null, "answer": "1 #### 1"}', ["DAT007", "x.jsonl:1", "nothing"]),
    "table in a column": ("x.jsonl", '{"question": {}, "answer": "1 #### 1"}', ["DAT007", "x.jsonl:1", "a dict"]),
    "half a character": ("x.jsonl", '{"question": "\\ud800", "answer": "#### 1"}', ["DAT004", "x.jsonl:1", "half"]),
    "no separator": ("x.txt", GOOD_LINE + "\nWhy? #### 2\n", ["DAT005", "x.txt:3", "'||' occurs 0 times"]),
    "two separators": ("x.txt", "a||b||c #### 2", ["DAT005", "x.txt:1", "'||' occurs 2 times"]),
    "no answer mark": ("x.txt", GOOD_LINE + "Why?||<<1+1=2>>", ["DAT005", "x.txt:2", "####"]),
    "answer mark twice": ("x.txt", "Why?||1 #### 2 #### 3", ["DAT012", "x.txt:1", "####"]),
    "answer mark in the question": ("x.txt", "Why####?||1 #### 2", ["DAT012", "x.txt:1", "question"]),
    "no question": ("x.txt", GOOD_LINE + "||1 #### 2", ["DAT007", "x.txt:2", "the question is empty"]),
    "no answer": ("x.txt", "Why?||1 #### ", ["DAT007", "x.txt:1", "the answer is empty"]),
    "no example": ("x.txt", "\n \n", ["DAT008", "x.txt", "holds no example"]),
    "utf-16": ("x.txt", GOOD_LINE.encode("utf-16"), ["DAT004", "x.txt:1", "UTF-8"]),
    "nul": ("x.txt", GOOD_LINE + "W\0hy?||1 #### 2", ["DAT004", "x.txt:2", "NUL"]),
    "gzip": ("x.txt", gzip.compress(GOOD_LINE.encode()), ["DAT004", "x.txt:1", "UTF-8"]),
    "endless line": ("x.txt", GOOD_LINE + "Why?||" + "1 " * (1 << 19), ["DAT010", "x.txt:2", "1,048,576 bytes"]),
    "parquet as text": ("x.txt", b"PAR1\x15\x04\x15\x10\xff\xfePAR1", ["DAT004", "x.txt:1", "UTF-8"]),
    "no steps anywhere": ("good.txt", None, ["CFG038", "methods", "no example has a CoT", "no_cot"]),
}


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(("name", "content", "expected"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: Any, stepwise: Callable[..., Any], verb: str, name: str, content: Any, expected: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    Path("good.txt").write_text("Why?|| #### 2\n" if name == "good.txt" else GOOD_LINE)
    Path("job.toml").write_text(
        f'name = "x"\n[task]\ntype = "gsm8k"\ntrain = "{name}"\nvalidation = "good.txt"\n[training]\nbatch_size = 1\n'
        "[schedule]\ntokens_per_stage = 1\n"
    )
    finished = stepwise(verb, "job.toml", "--store", "store")
    assert finished.code == 2
    assert all(word in finished.err for word in expected), finished.err
    assert "Traceback" not in finished.err
    assert not Path("store").exists()


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    lines = GOOD_LINE * 3
    (tmp_path / "plain.txt").write_bytes(lines.encode())
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
    plain, windows = (
        make_task(Gsm8kTask(train=str(tmp_path / name), validation=str(tmp_path / "plain.txt"))).identity
        for name in ("plain.txt", "windows.txt")
    )
    assert plain == windows


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('type = "gsm8k"\ntrain = "a.txt"', ["CFG007", "task.validation", "missing"]),
        ('type = "text"\ntrain = "a"\nvalidation = "b"\ndigits = [2, 2]', ["CFG006", "task.digits", "type of task"]),
        ('type = "text"\ntrain = "a"\nvalidation = "b"\nsubset = "main"', ["CFG029", "subset", "dataset"]),
        ('type = "gsm8"\ntrain = "a"', ["CFG019", "task.type", "'gsm8'", "'gsm8k'"]),
    ],
)
def test_bad_task_table_is_refused(tmp_path: Path, stepwise: Callable[..., Any], line: str, expected: Any) -> None:
    (tmp_path / "job.toml").write_text(f'name = "x"\n[task]\n{line}\n')
    finished = stepwise("plan", tmp_path / "job.toml")
    assert finished.code == 2
    assert all(word in finished.err for word in expected), finished.err


def test_dataset_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'name = "x"\n[task]\ntype = "gsm8k"\ndataset = "no/such"\ntrain = "train"\nvalidation = "test"\n'
    )
    finished = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", "job.toml"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith("error[DAT009] task.dataset: 'no/such', split 'train', could not be loaded")
    assert not list(tmp_path.glob("stepwise-store"))


def gsm8k_job(folder: Path, **tables: Any) -> Job:
    task = {"type": "gsm8k", "train": str(folder / "train.txt"), "validation": str(folder / "valid.txt")}
    schedule = {"tokens_per_stage": 3, "stage_steps": 3, "remove_all_beyond": 6}
    training = {"batch_size": 8, "learning_rate": 1e-3}
    return Job.model_validate({"name": "x", "task": task, "schedule": schedule, "training": training} | SMALL | tables)


def walked(job: Job, root: Path) -> tuple[JobData, list[Manifest]]:
    store = StageStore(root)
    data = prepare_data(job, store)
    (trial,) = build_plan(job, data.total_tokens).trials
    runner = StageRunner(Workplace(job, data, store))
    return data, [chain.attempts[-1].manifest for chain in walk(trial, runner)]


def test_pretrained_model_internalizes_steps_of_all_lengths_at_once_beyond_the_threshold(gsm8k, small_gpt2, tmp_path):
    model = {"type": "pretrained", "name": str(small_gpt2)}
    training = {"batch_size": 8, "max_train_tokens": 100}
    data, manifests = walked(gsm8k_job(gsm8k, model=model, training=training), tmp_path / "store")
    longest = data.total_tokens
    assert [m.metrics.removed_tokens for m in manifests] == [0, 3, 5, longest]
    assert manifests[0].metrics.generated_tokens >= 1
    assert all(m.passed for m in manifests)
    lengths = np.concatenate([table.cot_end - table.cot_start for table in (data.train, data.validation)])
    assert lengths.min() < 6 < longest == lengths.max()


def test_words_are_the_tokens_of_a_model_from_scratch(gsm8k, tmp_path):
    data, manifests = walked(gsm8k_job(gsm8k, schedule={"tokens_per_stage": 1, "stage_steps": 2}), tmp_path / "store")
    assert data.total_tokens == build_plan(gsm8k_job(gsm8k)).total_tokens == 4
    assert [m.metrics.removed_tokens for m in manifests] == [0, 1, 2, 3, 4]


def test_examples_that_do_not_fit_the_model_are_refused_with_file_and_line(gsm8k, small_gpt2, tmp_path):
    lines = (gsm8k / "train.txt").read_text().splitlines()
    lines[6] = "Why?||" + "<<1+1=2>> " * 1_000 + "#### 2"
    (gsm8k / "train.txt").write_text("\n".join(lines))
    job = gsm8k_job(gsm8k, model={"type": "pretrained", "name": str(small_gpt2)})
    with pytest.raises(Exception, match=r"MOD002.*2048 positions.*train\.txt:7"):
        prepare_data(job, StageStore(tmp_path / "store"))
    limited = job.model_copy(update={"training": job.training.model_copy(update={"max_train_tokens": 100})})
    assert prepare_data(limited, StageStore(tmp_path / "store")).train.longest > 2048
    hopeless = job.model_copy(update={"training": job.training.model_copy(update={"max_train_tokens": 5})})
    with pytest.raises(Exception, match=r"DAT014.*training\.max_train_tokens"):
        prepare_data(hopeless, StageStore(tmp_path / "store"))


def test_text_that_holds_the_separator_is_refused_with_file_and_line(gsm8k, small_gpt2, tmp_path):
    with (gsm8k / "valid.txt").open("a") as file:
        file.write("Why <|endoftext|>?||1 #### 1\n")
    job = gsm8k_job(gsm8k, model={"type": "pretrained", "name": str(small_gpt2)})
    with pytest.raises(Exception, match=r"DAT012.*valid\.txt:16.*endoftext.*4 times"):
        prepare_data(job, StageStore(tmp_path / "store"))


def test_word_that_the_tokenizer_does_not_know_is_refused_with_file_and_line(gsm8k, tmp_path):
    shape = ScratchModel(layers=1, width=32, heads=2)
    tokenizer = load_tokenizer(shape, make_task(gsm8k_job(gsm8k).task).symbols)
    save_weights(initial_model(shape, tokenizer, 64, 0), tokenizer, tmp_path / "model")
    with (gsm8k / "valid.txt").open("a") as file:
        file.write("Wherefore?||1 #### 1\n")
    job = gsm8k_job(gsm8k, model={"type": "pretrained", "name": str(tmp_path / "model")})
    with pytest.raises(Exception, match=r"DAT013.*valid\.txt:16.*does not know 'Wherefore\?';"):
        prepare_data(job, StageStore(tmp_path / "store"))


def test_tokenizer_without_end_is_refused(gsm8k, small_gpt2, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in small_gpt2.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(Exception, match=r"MOD004.*no EOS token"):
        prepare_data(gsm8k_job(gsm8k, model={"type": "pretrained", "name": str(folder)}), StageStore(tmp_path / "s"))


ROWS = Batch(
    torch.tensor([[7, 0, 4, 5, 6, 0, 9, 0], [8, 0, 4, 0, 9, 0, 0, 0], [8, 7, 0, 4, 5, 0, 9, 0]]),
    torch.tensor([8, 6, 8]),
    torch.tensor([2, 2, 3]),
    torch.tensor([5, 3, 5]),
)


def test_long_example_is_left_out_alone_and_comes_in_once_it_is_short_enough():
    whole = without_long(cut(ROWS, torch.tensor([0, 0, 0])), 7)
    assert (whole.labels_BK != IGNORED).sum(1).tolist() == [0, 4, 0]
    assert whole.tokens_BK.shape[1] == whole.lengths_B.max() == 6
    shorter = without_long(cut(ROWS, torch.tensor([1, 1, 0])), 7)
    alone = cut(ROWS.rows(slice(0, 2)), torch.tensor([1, 1]))
    assert shorter.labels_BK[:2].tolist() == alone.labels_BK.tolist()
    assert shorter.tokens_BK[:2].tolist() == alone.tokens_BK.tolist()
    assert (shorter.labels_BK[2] == IGNORED).all()
    none = without_long(cut(ROWS, torch.tensor([0, 0, 0])), 3)
    assert none.tokens_BK.shape == (3, 2)
    assert (none.labels_BK == IGNORED).all()


def test_limit_no_example_exceeds_changes_nothing(gsm8k, tmp_path):
    def weights(**training: Any) -> list[str]:
        job = gsm8k_job(gsm8k, training={"batch_size": 8, "learning_rate": 1e-3, **training})
        _, manifests = walked(job, tmp_path / "store")
        return [file.sha256 for m in manifests for file in m.files if file.path == "model.safetensors"]

    assert weights() == weights(max_train_tokens=999) != weights(max_train_tokens=22)


def test_batches_of_examples_that_are_all_too_long_are_survived(gsm8k, tmp_path):
    lengths = prepare_data(gsm8k_job(gsm8k), StageStore(tmp_path / "store")).train.lengths
    training = {"batch_size": 2, "max_train_tokens": int(lengths.min())}
    schedule = {"tokens_per_stage": 4, "stage_steps": 12}
    _, manifests = walked(gsm8k_job(gsm8k, training=training, schedule=schedule), tmp_path / "store")
    assert all(m.passed for m in manifests)


def test_answer_that_is_the_same_number_counts_where_one_look_would_call_it_wrong(gsm8k, tmp_path):
    """A model from scratch that has learnt to write another spelling of the right number."""
    (gsm8k / "train.txt").write_text("a b||c d #### 18.0\n" * 8)
    (gsm8k / "valid.txt").write_text("a b||c d #### 18\n" * 4)
    schedule = {"tokens_per_stage": 1, "stage_steps": 1, "pretrain_steps": 60}
    job = gsm8k_job(gsm8k, schedule=schedule, training={"batch_size": 8, "learning_rate": 3e-2})
    _, manifests = walked(job, tmp_path / "store")
    assert manifests[0].metrics.exact_match == 1.0


def test_one_job_of_each_kind_of_data_plans_and_shows_its_examples(tmp_path, gsm8k, stepwise, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(
        'name = "x"\n[task]\ntype = "gsm8k"\ntrain = "gsm8k/train.txt"\nvalidation = "gsm8k/valid.txt"\n'
        "[schedule]\ntokens_per_stage = 1\nstage_steps = 5\n[training]\nbatch_size = 8\n"
    )
    assert stepwise("plan", "job.toml").code == 0
    shown = stepwise("data", "job.toml", "--split", "validation", "--limit", 2).out.splitlines()
    assert shown == [line.replace(",", "") for line in islice((gsm8k / "valid.txt").read_text().splitlines(), 2)]
    finished = stepwise("data", "job.toml", "--split", "test")
    assert (finished.code, "task.test: not given" in finished.err) == (2, True)
    guess = json.loads(stepwise("plan", "job.toml", 'model={type="pretrained",name="gpt2"}', "--json").out)
    assert guess["estimated"]
    assert not json.loads(stepwise("plan", "job.toml", "--json").out)["estimated"]


def test_evaluator_says_the_same_with_and_without_looking_first(gsm8k, tmp_path):
    data, manifests = walked(gsm8k_job(gsm8k), tmp_path / "store")
    evaluator = Evaluator(
        data.validation, data.tokenizer, data.task.is_correct, Evaluation(), token_is_symbol=data.task.exact
    )
    model = load_weights(StageStore(tmp_path / "store").folder(manifests[-1]))
    for removed in (0, 2, 4):
        assert evaluator.accuracy(model, Removed(removed)) == evaluator.accuracy(model, Removed(removed), verify=False)


@given(st.lists(st.integers(2, 90), min_size=1, max_size=40), st.integers(1, 300))
def test_passes_take_every_example_once_and_no_more_tokens_than_allowed(lengths: list[int], most: int) -> None:
    lengths_B = torch.tensor(lengths)
    passes = [part.tolist() for part in by_length(lengths_B, most)]
    assert sorted(row for part in passes for row in part) == list(range(len(lengths)))
    assert all(len(part) == 1 or len(part) * int(lengths_B[part].max()) <= most for part in passes)
    padded = sum(len(part) * int(lengths_B[part].max()) for part in passes)
    assert padded <= len(lengths) * max(lengths)


def test_passes_by_length_are_the_same_work_with_less_padding(tmp_path: Path, gsm8k: Path) -> None:
    tables = {
        "name": "x",
        "task": {"type": "gsm8k", "train": f"{gsm8k}/train.txt", "validation": f"{gsm8k}/valid.txt"},
        "schedule": {"pretrain_steps": 8, "tokens_per_stage": 2, "stage_steps": 4, "remove_all_beyond": 2},
        "training": {"learning_rate": 3e-3, "batch_size": 12, "precision": "fp32"},
        **SMALL,
    }
    runs = []
    for folder, resources in (("plain", {}), ("grouped", {"micro_batch_tokens": 60})):
        _, manifests = walked(Job.model_validate(tables | {"resources": resources}), tmp_path / folder)
        store = StageStore(tmp_path / folder)
        runs.append({m.key: load_weights(store.folder(m)).state_dict() for m in manifests})
    plain, grouped = runs
    assert plain.keys() == grouped.keys() and len(plain) > 2
    for key, expected in plain.items():
        for name, weight in expected.items():
            torch.testing.assert_close(grouped[key][name], weight, atol=1e-3, rtol=1e-2)
