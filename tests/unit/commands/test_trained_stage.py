"""What is done with trained stages, through the command line: found by name, asked, taken home."""

from __future__ import annotations

import csv
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import pipeline

from orchestrator.config import Job, load_job
from orchestrator.plan import build_plan
from orchestrator.results.find import find_stage
from orchestrator.store import StageStore, plan_for, save_job
from orchestrator.tasks import make_task
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

JOB = Job.model_validate(
    {
        "name": "tiny",
        "methods": ["no_cot", "stepwise"],
        "task": {"digits": [1, 2]},
        "model": {"layers": 1, "width": 32, "heads": 4},
        "schedule": {"pretrain_steps": 100, "tokens_per_stage": 3, "stage_steps": 40, "consolidation_stages": 1},
        "training": {"learning_rate": 5e-3, "batch_size": 64, "precision": "fp32"},
        "evaluation": {"examples": 30, "speed_examples": 2, "speed_batch": 2},
    }
)


def run_in_process(job: Job, root: Path) -> StageStore:
    """Every trial of a job, and what `stepwise run` remembers of it."""
    store = StageStore(root)
    data = prepare_data(job, store)
    plan = build_plan(job, data.total_tokens)
    save_job(plan, store)
    for trial in plan.trials:
        runner = StageRunner(Workplace(trial.job, data, store))
        list(walk(trial, runner))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StageStore:
    return run_in_process(JOB, tmp_path_factory.mktemp("use"))


def questions(count: int) -> list[str]:
    return [example.question for example in make_task(JOB.task).examples("validation")][:count]


@pytest.mark.parametrize(
    ("name", "stage", "removed"),
    [("tiny:stepwise-seed0:1", 1, 0), ("tiny:step:2", 2, 3), ("tiny:stepwise", 4, 6), ("tiny:no_cot", 4, 6)],
)
def test_stage_is_found_by_job_trial_and_number(store: StageStore, name: str, stage: int, removed: int) -> None:
    place = find_stage(name, store)
    assert (place.tried.stage.index, place.tried.manifest.metrics.removed_tokens) == (stage, removed)
    assert find_stage(place.tried.stage.key[:9], store).tried == place.tried


def test_job_alone_means_its_most_accurate_stage_that_writes_no_cot(store: StageStore) -> None:
    place = find_stage("tiny", store)
    names = [f"tiny:no_cot:{number}" for number in range(5)] + [f"tiny:stepwise:{number}" for number in (3, 4)]
    without = [find_stage(name, store).tried.manifest.metrics.exact_match for name in names]
    assert place.tried.manifest.metrics.removed_tokens == 6
    assert place.tried.manifest.metrics.exact_match == max(without)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["zz"], ["FRK004", "no job here"]),
        (["tiny:x"], ["FRK004", "no_cot-seed0, stepwise-seed0"]),
        (["tiny:stepwise:9"], ["FRK004", "stages 0 to 4"]),
        (["tiny", "12 * 3"], ["PRE001", "'12 * 3'", "does not know '12'"]),
        (["tiny", "1 <eos> * 3 2"], ["PRE004", "<eos>"]),
        (["tiny", " ".join(["1"] * 40)], ["PRE002", "41 tokens", "positions"]),
    ],
)
def test_what_cannot_be_asked_is_refused(store, stepwise, words: list[str], expected: list[str]) -> None:
    finished = stepwise("predict", *words, *["1 * 2 3"][: 2 - len(words)], "--store", store.root)
    assert finished.code == 2
    assert all(word in finished.err for word in expected), finished.err


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a text on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize("name", ["tiny:stepwise:0", "tiny:stepwise:2", "tiny"])
def test_answers_are_right_as_often_as_the_stage_was_measured(
    store: StageStore, stepwise: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    examples = list(make_task(JOB.task).examples("validation"))[:30]
    type_in(monkeypatch, "\n".join(example.question for example in examples) + "\n\n")
    document = json.loads(stepwise("predict", name, "--store", store.root, "--json").out)
    answers = [prediction["answer"] for prediction in document["predictions"]]
    right = sum(answer == example.answer for answer, example in zip(answers, examples, strict=True))
    assert right / 30 == pytest.approx(document["exact_match"])


@pytest.mark.parametrize("name", ["tiny:stepwise:0", "tiny:stepwise:2", "tiny:no_cot"])
def test_evaluated_anew_a_stage_is_as_right_as_it_was_measured(store: StageStore, stepwise: Callable, name) -> None:
    words = ("evaluate", name, "--split", "validation", "--store", store.root)
    document = json.loads(stepwise(*words, "--limit", 30, "--json").out)
    metrics = find_stage(name, store).tried.manifest.metrics
    assert (document["exact_match"], document["removed_tokens"]) == (metrics.exact_match, metrics.removed_tokens)
    assert document["examples"] == 30
    everything = stepwise(*words).out
    assert f"on {make_task(JOB.task).size('validation')} validation examples" in everything


def said(root: Path, test: Path | None = None) -> StageStore:
    """A job on a few words: `said`, which repeats what it is told to say."""
    (root / "train.txt").write_text("".join(f"say {word}||{word} #### {word}\n" for word in "abcd" * 20))
    text = {"type": "text", "train": str(root / "train.txt"), "validation": str(root / "train.txt")}
    tables = {
        "task": text | ({"test": str(test)} if test else {}),
        "schedule": {"tokens_per_stage": 1, "stage_steps": 60},
    }
    return run_in_process(Job.model_validate(JOB.model_dump() | tables | {"name": "said", "methods": ["no_cot"]}), root)


def test_test_split_is_read_as_it_is_now_and_refused_with_file_and_line(stepwise: Callable, tmp_path: Path) -> None:
    test = tmp_path / "test.txt"
    store = said(tmp_path, test)
    for content, code in (("say x||x #### x\n", "DAT013"), ("say a a a a a||a #### a\n", "EVA001")):
        test.write_text(f"say a||a #### a\n{content}")
        refused = stepwise("evaluate", "said", "--store", store.root)
        assert (refused.code, code in refused.err, "test.txt:2" in refused.err) == (2, True, True), refused.err
    test.write_text("say a||a #### a\nsay b||b #### a\n")
    assert (
        "exact match 0.500 (0.095 to 0.905) on 2 test examples"
        in stepwise("evaluate", "said", "--store", store.root).out
    )


def test_job_without_a_test_split_says_where_to_name_one(stepwise: Callable, tmp_path: Path) -> None:
    refused = stepwise("evaluate", "said", "--store", said(tmp_path).root)
    assert refused.code == 2 and "DAT015" in refused.err and "task.test: not given" in refused.err


def test_questions_come_from_standard_input_or_there_are_none(
    store: StageStore, stepwise: Callable, monkeypatch
) -> None:
    first, second = questions(2)
    type_in(monkeypatch, f"{first}\n\n{second}\n")
    assert stepwise("predict", "tiny", "--store", store.root).out.count("question  ") == 2
    type_in(monkeypatch, "\n")
    nothing = stepwise("predict", "tiny", "--store", store.root)
    assert nothing.code == 2 and "no question" in nothing.err


def test_model_that_writes_its_cot_shows_it(store: StageStore, stepwise: Callable) -> None:
    finished = stepwise("predict", "tiny:stepwise:0", *questions(2), "--store", store.root)
    lines = finished.out.splitlines()
    assert lines[0].startswith("stage 0 of tiny:stepwise-seed0")
    assert "0 of 6 CoT tokens removed" in lines[0]
    assert [line.split()[0] for line in lines if line][1:] == ["question", "writes", "answer"] * 2
    assert " + " in lines[3]


def test_question_of_other_lengths_than_those_trained_on_is_answered_with_a_note(store, stepwise) -> None:
    finished = stepwise("predict", "tiny", "1 2 * 3", "4 * 2 8", "--store", store.root)
    assert finished.out.count("note") == 1
    assert "note      the model was trained on 1 x 2 digits, this is 2 x 1" in finished.out


@pytest.mark.parametrize(("name", "last"), [("tiny:stepwise:2", False), ("tiny", True)])
def test_exported_folder_answers_in_a_pipeline_as_the_stage_does(
    store: StageStore, stepwise: Callable, tmp_path: Path, name: str, last: bool
) -> None:
    home = tmp_path / "home"
    assert stepwise("export", name, home, "--store", store.root).code == 0
    document = json.loads(stepwise("predict", name, *questions(8), "--store", store.root, "--json").out)
    card = (home / "README.md").read_text()
    prompts = [f" {question} <eos>" + "<eos>" * last for question in questions(8)]
    assert json.dumps(prompts[0]) in card
    answer = pipeline("text-generation", str(home))
    for prompt, expected in zip(prompts, document["predictions"], strict=True):
        [output] = answer(prompt, return_full_text=False, skip_special_tokens=False)
        said = output["generated_text"].partition("####")[2].partition("<eos>")[0].strip()
        assert said == expected["answer"]


def test_card_tells_the_task_the_numbers_and_the_lineage(store: StageStore, stepwise: Callable, tmp_path: Path) -> None:
    stepwise("export", "tiny:stepwise:3", tmp_path / "home", "--store", store.root)
    card = (tmp_path / "home" / "README.md").read_text()
    place = find_stage("tiny:stepwise:3", store)
    for said in (
        r"digits \[1, 2\]",
        "| 6 of 6 |",
        f"{place.tried.manifest.metrics.exact_match:.3f}",
        "of 30 validation",
    ):
        assert said in card
    for number in range(4):
        assert find_stage(f"tiny:stepwise:{number}", store).tried.stage.key[:8] in card
    assert "x No CoT" in card
    assert "licence" in card


def test_job_of_an_export_is_the_same_work(store: StageStore, stepwise: Callable, tmp_path: Path) -> None:
    stepwise("export", "tiny", tmp_path / "home", "--store", store.root)
    again = plan_for(load_job(tmp_path / "home" / "job.toml"), store)
    assert [stage.key for stage in again.trials[0].stages] == [
        stage.key for stage in find_stage("tiny", store).trial.stages
    ]


def test_export_overwrites_nothing_and_leaves_nothing_half(store: StageStore, stepwise: Callable, tmp_path) -> None:
    (tmp_path / "home").mkdir()
    finished = stepwise("export", "tiny", tmp_path / "home", "--store", store.root)
    assert (finished.code, finished.err[:13]) == (2, "error[EXP001]")
    place = find_stage("tiny:stepwise:1", store)
    weights = store.folder(place.tried.manifest) / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1])
    (tmp_path / f"other.{socket.gethostname()}-999999999.partial").mkdir()  # what a killed export left
    finished = stepwise("export", "tiny:stepwise:1", tmp_path / "other", "--store", store.root)
    weights.write_bytes(sound)
    assert (finished.code, finished.err[:13]) == (2, "error[CKP002]")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def probed(stepwise: Callable, store: StageStore, name: str, out: Path) -> dict[str, list[dict[str, str]]]:
    finished = stepwise("probe", name, "--store", store.root, "--out", out, "--examples", 300)
    assert finished.code == 0, finished.err
    assert (out / next(path.name for path in out.glob("*.png"))).read_bytes()[:4] == b"\x89PNG"
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(next(out.glob("*.csv")).read_text().splitlines()):
        rows.setdefault(row["target"], []).append(row)
        assert row["target"] in finished.out
    return rows


def test_probe_reads_what_is_written_where_it_is_written(store: StageStore, stepwise: Callable, tmp_path: Path) -> None:
    rows = probed(stepwise, store, "tiny:stepwise:0", tmp_path)
    assert list(rows) == [f"a·b{i}, digit {j}" for i in (0, 1) for j in (0, 1)] + ["ĉ0", "ĉ1", "ĉ2"]
    at_its_token = [row for row in rows["a·b0, digit 1"] if row["symbol"] == "z1" and row["layer"] == "0"]
    assert [float(row["score"]) for row in at_its_token] == [1.0, 1.0]  # of the trained and of the untrained model
    before = [float(row["score"]) for row in rows["a·b0, digit 1"] if row["symbol"] == "*"]
    assert max(before) < 0.5
    tokens = [row["symbol"] for row in rows["ĉ0"] if row["model"] == "trained" and row["layer"] == "0"]
    assert tokens == ["a0", "*", "b0", "b1", "E", *(f"z{i}" for i in range(6)), "E", "####", "c0", "c1", "c2", "E"]


def test_probe_of_a_stage_without_cot_has_its_shorter_sequence(store: StageStore, stepwise: Callable, tmp_path) -> None:
    rows = probed(stepwise, store, "tiny", tmp_path)
    assert {row["symbol"] for row in rows["ĉ0"]} == {"a0", "*", "b0", "b1", "E", "####", "c0", "c1", "c2"}
    trained = [row for row in rows["ĉ0"] if row["model"] == "trained"]
    assert len(trained) == 2 * 11  # layers x positions
    assert all(float(row["constant"]) == float(trained[0]["constant"]) for row in trained)
