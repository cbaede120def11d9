"""The doctor: what it shows is what a run trains on, and it finds what was planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

JOB = """
name = "x"
[task]
type = "gsm8k"
train = "gsm8k/train.txt"
validation = "gsm8k/valid.txt"
[schedule]
tokens_per_stage = 3
stage_steps = 10
[training]
batch_size = 8
"""


@pytest.fixture
def here(tmp_path: Path, gsm8k: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def diagnosed(stepwise: Any, *overrides: str) -> dict[str, Any]:
    finished = stepwise("doctor", "job.toml", *overrides, "--json", "--store", "store")
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("beyond", [None, 7])
def test_stages_remove_every_example_token_by_token_from_its_side(here, stepwise, small_gpt2, side, beyond):
    overrides = [f'model={{type="pretrained", name="{small_gpt2}"}}', f"schedule.removal_side={side}"]
    overrides += [f"schedule.remove_all_beyond={beyond}"] if beyond else []
    diagnosis = diagnosed(stepwise, *overrides)
    shortest, _, longest = diagnosis["shown"]
    assert len(shortest["cot"]) < 3 < 25 < len(longest["cot"])
    for shown in diagnosis["shown"]:
        gone = [tuple(removed["tokens"]) for removed in shown["removed"]]
        in_order = gone if side == "left" else gone[::-1]
        assert [token for tokens in in_order for token in tokens] == shown["cot"]
        assert max(map(len, gone[: 2 if beyond else None]), default=0) <= 3
    assert "".join(longest["question"]).strip().startswith("Ann buys")
    assert "".join(longest["answer"]).split()[0] == "####"


def test_lengths_are_those_of_the_tokens(here, stepwise):
    diagnosis = diagnosed(stepwise)
    lengths = {(row["split"], row["part"]): row["tokens"] for row in diagnosis["lengths"]}
    assert lengths["train", "CoT"] == [2, 4, 4, 4]
    assert lengths["train", "question"] == [16, 16, 16, 16]
    assert diagnosis["total_tokens"] == 4
    assert [size["without_cot"] for size in diagnosis["splits"]] == [9, 3]


def test_leaks_repetitions_and_unseen_tokens_are_found(here, stepwise):
    train, valid = Path("gsm8k/train.txt"), Path("gsm8k/valid.txt")
    lines = train.read_text().split("\n")
    train.write_text("\n".join([*lines, lines[4]]))
    valid.write_text(valid.read_text() + lines[7].replace("  ", " ") + "\nBo has zebras?||1 #### 2\n")
    diagnosis = diagnosed(stepwise, "task.test=gsm8k/valid.txt")
    assert [size["repeated"] for size in diagnosis["splits"]] == [1, 0, 0]
    found = {(leak["split"], leak["other"]): (leak["questions"], leak["first"]) for leak in diagnosis["leaks"]}
    assert found["validation", "train"] == (1, "gsm8k/valid.txt:16")
    assert found["test", "validation"] == (17, "gsm8k/valid.txt:1")
    assert {"Bo", "zebras?"} <= set(diagnosis["unseen"])
    shown = stepwise("doctor", "job.toml", "--store", "store").out
    assert "leak: 1 question of validation also in train, the first at gsm8k/valid.txt:16" in shown
    assert "tokens that training never shows" in shown


def test_limits_are_told_in_examples(here, stepwise):
    shown = stepwise(
        "doctor", "job.toml", "training.max_train_tokens=22", "schedule.remove_all_beyond=2", "--store", "store"
    ).out
    assert "max_train_tokens=22 leaves out 27 training examples (60.0%)" in shown
    assert "remove_all_beyond=2 ends 18 CoTs of training (40.0%)" in shown


def test_long_tail_is_remarked(here, stepwise):
    with Path("gsm8k/valid.txt").open("a") as file:
        file.write("Why?||" + "<<1+1=2>> " * 40 + "#### 2\n")
    assert "schedule.remove_all_beyond=4 would remove them at once" in stepwise("doctor", "job.toml").out


def test_generated_tasks_have_a_doctor_too(stepwise, tmp_path):
    (tmp_path / "job.toml").write_text('name = "x"\n[task]\ndigits = [2, 2]\n')
    finished = stepwise("doctor", tmp_path / "job.toml", "--store", tmp_path / "store")
    assert finished.code == 0
    assert "no question is in two of train, validation, test" in finished.out
    assert "stage 1   removes 8: " in finished.out


def test_doctor_of_a_search_shows_its_first_configuration(stepwise, tmp_path):
    (tmp_path / "job.toml").write_text(
        'name = "x"\n[task]\ndigits = [2, 2]\n[search]\nspace.schedule.tokens_per_stage = [2, 4]\n'
    )
    finished = stepwise("doctor", tmp_path / "job.toml", "--store", tmp_path / "store")
    assert "stage 1   removes 2: " in finished.out
    assert "stages are those of the search's first configuration, Δ 2" in finished.out


def test_bad_data_is_refused_by_the_doctor_too(here, stepwise):
    Path("gsm8k/train.txt").write_text("no separator")
    finished = stepwise("doctor", "job.toml", "--store", "store")
    assert (finished.code, "DAT005" in finished.err) == (2, True)
    assert not Path("store").exists()
