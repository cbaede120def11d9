"""The store: commit, adopt, verify, two writers, and every kind of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import metrics_of
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import Job
from orchestrator.errors import StoreError
from orchestrator.plan import PlannedStage, build_plan
from orchestrator.store import Manifest, StageStore
from orchestrator.store.leftovers import discard, leftovers

WEIGHTS = bytes(range(256)) * 64


def make_stages(**training: float) -> tuple[PlannedStage, ...]:
    schedule = {"tokens_per_stage": 4, "stage_steps": 20, "pretrain_steps": 10}
    job = {"name": "tiny", "task": {"digits": [2, 2]}, "schedule": schedule, "training": training}
    return build_plan(Job.model_validate(job)).trials[0].stages


def attempt_of(store: StageStore, stage: PlannedStage, weights: bytes = WEIGHTS) -> Path:
    attempt = store.begin(stage.key)
    (attempt / "model.safetensors").write_bytes(weights)
    (attempt / "config.json").write_text("{}")
    return attempt


def committed(store: StageStore, stage: PlannedStage, **result: float) -> Manifest:
    return store.commit(stage, attempt_of(store, stage), "good", metrics_of(stage, **result))


@pytest.fixture
def store(tmp_path: Path) -> StageStore:
    return StageStore(tmp_path / "store")


@pytest.fixture
def stage() -> PlannedStage:
    return make_stages()[1]


def manifest_file(store: StageStore, stage: PlannedStage) -> Path:
    return store.stages / stage.key / "manifest.json"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_commit_is_read_back_by_another_process_view(store, stage):
    manifest = committed(store, stage)
    again = StageStore(store.root)
    assert again.manifest(stage) == manifest
    assert (again.folder(manifest) / "model.safetensors").read_bytes() == WEIGHTS
    again.verify(manifest)


def test_commit_records_spec_parent_verdict_files_and_versions(store, stage):
    manifest = committed(store, stage)
    assert (manifest.parent, manifest.identity, manifest.verdict) == (stage.parent, stage.identity, "good")
    assert {file.path: file.size for file in manifest.files} == {"config.json": 2, "model.safetensors": len(WEIGHTS)}
    assert {"stepwise", "torch", "transformers"} <= manifest.versions.keys()


def test_stage_never_begun_is_not_committed(store, stage):
    assert store.manifest(stage) is None
    assert not store.root.exists()


def test_crash_before_the_manifest_leaves_the_stage_uncommitted(store, stage):
    attempt = attempt_of(store, stage)
    assert store.manifest(stage) is None
    assert leftovers(store, stage.key) == [attempt]


def test_crash_while_the_manifest_is_written_leaves_the_stage_uncommitted(store, stage):
    attempt = attempt_of(store, stage)
    attempt.with_suffix(".manifest").write_text('{"format": 1, "key": "')
    assert store.manifest(stage) is None
    assert committed(store, stage).attempt != attempt.name


def test_two_attempts_at_one_stage_the_first_manifest_stands(store, stage):
    first, second = attempt_of(store, stage), attempt_of(store, stage)
    stands = store.commit(stage, first, "good", metrics_of(stage, 0.25))
    assert store.commit(stage, second, "good", metrics_of(stage, 0.75)) == stands
    assert store.manifest(stage).metrics.exact_match == 0.25
    assert not second.exists()
    assert leftovers(store, stage.key) == []


def test_attempt_that_is_committed_while_another_tidies_keeps_its_files(store, stage):
    attempt = attempt_of(store, stage)
    [unnamed] = leftovers(store, stage.key)
    store.commit(stage, attempt, "good", metrics_of(stage, 0.25))
    discard(store, unnamed)
    store.verify(store.manifest(stage))
    assert leftovers(store, stage.key) == []


def test_many_writers_at_once_agree_on_one_manifest(store, stage):
    with ThreadPoolExecutor(8) as threads:
        manifests = list(threads.map(lambda i: committed(store, stage, exact_match=i / 8), range(8)))
    assert all(manifest == manifests[0] for manifest in manifests)
    store.verify(manifests[0])
    assert leftovers(store, stage.key) == []


def test_diverged_attempt_keeps_its_record_without_weights(store, stage):
    store.commit(stage, store.begin(stage.key), "diverged", metrics_of(stage, 0.0))
    manifest = store.manifest(stage)
    assert (manifest.verdict, manifest.files) == ("diverged", ())
    store.verify(manifest)


def test_equal_key_of_other_work_is_an_error_with_the_fields_that_differ(store, stage):
    other = make_stages(learning_rate=0.5, warmup_steps=7)[1]
    committed(store, replace(other, key=stage.key))
    with pytest.raises(StoreError) as refused:
        store.manifest(stage)
    message = str(refused.value)
    assert str(manifest_file(store, stage)) in message
    assert "training.learning_rate: 0.5 -> (default)" in message
    assert "training.warmup_steps: 7 -> (default)" in message
    assert "batch_size" not in message


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap_for_a_link(path: Path) -> None:
    path.rename(path.parents[3] / "elsewhere")
    path.symlink_to(path.parents[3] / "elsewhere")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped bit": flip_a_bit,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "emptied": lambda path: path.write_bytes(b""),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to the same bytes": swap_for_a_link,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights_are_an_error_that_names_the_file(store, stage, damage):
    manifest = committed(store, stage)
    weights = store.folder(manifest) / "model.safetensors"
    damage(weights)
    with pytest.raises(StoreError) as refused:
        store.verify(manifest)
    assert str(weights) in str(refused.value)
    assert "fsck --repair" in str(refused.value)
    assert "config.json" not in str(refused.value)


def test_every_damaged_file_is_named(store, stage):
    manifest = committed(store, stage)
    shutil.rmtree(store.folder(manifest))
    with pytest.raises(StoreError) as refused:
        store.verify(manifest)
    assert len(refused.value.problems) == 2


MANIFEST_DAMAGE: dict[str, Callable[[str], str]] = {
    "torn": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not json": lambda text: "manifest",
    "not utf-8": lambda text: text.replace("good", "g\udcffod"),
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "key twice": lambda text: text.replace('"verdict"', '"verdict": "good", "verdict"', 1),
    "inner key twice": lambda text: text.replace('"examples"', '"examples": 1, "examples"', 1),
    "field missing": lambda text: text.replace('"attempt"', '"attemt"'),
    "field unknown": lambda text: text.replace("{", '{"surprise": 1,', 1),
    "verdict unknown": lambda text: text.replace('"good"', '"splendid"'),
    "of another stage": lambda text: text.replace('"key": "', '"key": "0'),
    "of a later format": lambda text: text.replace('"format": 1', '"format": 99'),
    "nested without end": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", MANIFEST_DAMAGE.values(), ids=MANIFEST_DAMAGE)
def test_damaged_manifest_is_an_error_that_names_it(store, stage, damage):
    committed(store, stage)
    path = manifest_file(store, stage)
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(StoreError, match="CKP009") as refused:
        store.manifest(stage)
    assert str(path) in str(refused.value)
    assert "fsck --repair" in str(refused.value)


@pytest.mark.parametrize("path", ["../../x", "../sibling", "/etc/hostname", "a/../../../x"])
def test_manifest_that_names_a_file_outside_its_folder_is_refused(store, stage, path):
    committed(store, stage)
    (store.stages / "x").write_text("not ours")
    edit(manifest_file(store, stage), lambda document: document["files"][0].update(path=path))
    with pytest.raises(StoreError, match="CKP010"):
        store.verify(store.manifest(stage))


@pytest.mark.parametrize("attempt", ["../../..", "/etc", "../../../outside"])
def test_manifest_that_names_an_attempt_outside_the_store_is_refused(store, stage, attempt):
    committed(store, stage)
    edit(manifest_file(store, stage), lambda document: document.update(attempt=attempt))
    with pytest.raises(StoreError, match=r"CKP0(09|10)"):
        store.verify(store.manifest(stage))


def test_manifest_patched_anywhere_is_read_or_refused(store, stage):
    committed(store, stage)
    path = manifest_file(store, stage)
    text = path.read_text()

    @given(st.integers(0, len(text)), st.integers(0, 400), st.text('0123456789"{}[],:.ae-\\/ \x00', max_size=6))
    def read_or_refused(start: int, length: int, patch: str) -> None:
        path.write_text(text[:start] + patch + text[start + length :])
        try:
            store.verify(store.manifest(stage))
        except StoreError as refused:
            assert str(store.root) in str(refused)

    read_or_refused()


def test_committed_stage_is_a_hugging_face_folder(store, stage):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from orchestrator.config import ScratchModel
    from orchestrator.method.models.hub import load_tokenizer
    from orchestrator.method.models.model import initial_model, save_weights

    tokenizer = load_tokenizer(ScratchModel(), ("0", "1", "*", "####"))
    model = initial_model(ScratchModel(layers=1, width=16, heads=2), tokenizer, 12, seed=0)
    attempt = store.begin(stage.key)
    save_weights(model, tokenizer, attempt)
    manifest = store.commit(stage, attempt, "good", metrics_of(stage))
    loaded = AutoModelForCausalLM.from_pretrained(store.folder(manifest)).eval()
    words = AutoTokenizer.from_pretrained(store.folder(manifest))
    ids = words("0 1 * 1 <eos> #### 1", return_tensors="pt")["input_ids"]
    assert words.decode(ids[0], skip_special_tokens=True).replace(" ", "") == "01*1####1"
    with torch.inference_mode():
        assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


@pytest.fixture
def damaged_store(store: StageStore) -> tuple[StageStore, tuple[PlannedStage, ...]]:
    """Three committed stages: the second's weights have a flipped bit, the third has a leftover beside it."""
    stages = make_stages()[:3]
    for one in stages:
        committed(store, one)
    flip_a_bit(store.folder(store.manifest(stages[1])) / "model.safetensors")
    attempt_of(store, stages[2])
    return store, stages


def test_fsck_of_a_sound_store_says_so(store, stage, stepwise):
    committed(store, stage)
    finished = stepwise("fsck", "--store", store.root)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith("1 stages verified, 0 damaged")


def test_fsck_refuses_a_folder_that_is_no_store(tmp_path, stepwise):
    (tmp_path / "precious").write_text("kept")
    finished = stepwise("fsck", "--repair", "--store", tmp_path)
    assert finished.code == 2
    assert "is not a store" in finished.err
    assert (tmp_path / "precious").read_text() == "kept"


def test_fsck_names_what_is_damaged_and_changes_nothing(damaged_store, stepwise):
    store, stages = damaged_store
    before = sorted(store.root.rglob("*"))
    finished = stepwise("fsck", "--store", store.root)
    assert finished.code == 1
    assert f"{stages[1].key}" in finished.out.splitlines()[0]
    assert "SHA-256" in finished.out.splitlines()[0]
    assert "2 stages verified, 1 damaged stages found, 1 leftovers found" in finished.out
    assert "fsck --repair" in finished.out
    assert sorted(store.root.rglob("*")) == before


def test_fsck_repair_removes_the_damaged_stage_and_leftovers_and_nothing_else(damaged_store, stepwise):
    store, stages = damaged_store
    assert stepwise("fsck", "--repair", "--store", store.root).code == 0
    assert [store.manifest(one) is not None for one in stages] == [True, False, True]
    assert leftovers(store, stages[2].key) == []
    assert (
        stepwise("fsck", "--store", store.root).out == "2 stages verified, 0 damaged stages found, 0 leftovers found\n"
    )


@pytest.mark.parametrize("damage", MANIFEST_DAMAGE.values(), ids=MANIFEST_DAMAGE)
def test_fsck_repairs_any_manifest_so_that_the_stage_can_run_again(store, stage, stepwise, damage):
    committed(store, stage)
    path = manifest_file(store, stage)
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    assert stepwise("fsck", "--store", store.root).code == 1
    assert stepwise("fsck", "--repair", "--store", store.root).code == 0
    assert store.manifest(stage) is None
    assert committed(store, stage).verdict == "good"


def test_fsck_repair_removes_links_but_not_what_they_lead_to(store, stage, stepwise, tmp_path):
    committed(store, stage)
    (tmp_path / "precious").mkdir()
    (store.stages / stage.key / "link").symlink_to(tmp_path / "precious")
    assert stepwise("fsck", "--repair", "--store", store.root).code == 0
    assert (tmp_path / "precious").is_dir()
    assert leftovers(store, stage.key) == []


def test_plan_on_a_store_with_a_torn_manifest_names_it(store, stepwise, tmp_path):
    (tmp_path / "job.toml").write_text(
        'name = "tiny"\n[task]\ndigits = [2, 2]\n'
        "[schedule]\ntokens_per_stage = 4\nstage_steps = 20\npretrain_steps = 10\n"
    )
    stage = make_stages()[0]
    committed(store, stage)
    planned = stepwise("plan", tmp_path / "job.toml", "--json", "--store", store.root)
    assert [one["in_store"] for one in json.loads(planned.out)["trials"][0]["stages"]][:2] == [True, False]
    manifest_file(store, stage).write_text("{")
    finished = stepwise("plan", tmp_path / "job.toml", "--store", store.root)
    assert finished.code == 2
    assert str(manifest_file(store, stage)) in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.parametrize("name", ["a\x00b", "a" * 5000, "\ud800"], ids=["nul", "long", "surrogate"])
@pytest.mark.parametrize(
    "change",
    [
        lambda document, name: document["files"][0].update(path=name),
        lambda document, name: document.update(attempt=name),
    ],
    ids=["file", "attempt"],
)
def test_manifest_with_a_name_that_no_file_can_have_is_refused(store, stage, stepwise, change, name):
    committed(store, stage)
    edit(manifest_file(store, stage), lambda document: change(document, name))
    with pytest.raises(StoreError):
        store.verify(store.manifest(stage))
    assert stepwise("fsck", "--store", store.root).code == 1


def test_manifest_that_is_a_folder_is_an_error_that_names_it(store, stage, stepwise):
    committed(store, stage)
    manifest_file(store, stage).unlink()
    manifest_file(store, stage).mkdir()
    with pytest.raises(StoreError, match=r"manifest\.json"):
        store.manifest(stage)
    assert stepwise("fsck", "--repair", "--store", store.root).code == 0
    assert store.manifest(stage) is None


def test_fsck_passes_over_files_that_are_no_stages(store, stage, stepwise):
    committed(store, stage)
    (store.stages / ".DS_Store").write_text("")
    finished = stepwise("fsck", "--store", store.root)
    assert (finished.code, finished.err) == (0, "")
