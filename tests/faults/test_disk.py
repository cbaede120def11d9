"""A finished stage that somebody touched is never trained on: the file is named, ``fsck`` mends it, the run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.oracle import Result, result
from faults.walks import Log, drive

from orchestrator.errors import StoreError
from orchestrator.store import Manifest, StageStore

PARENT, CHILD = 3, 4
FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "optimizer.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def link_elsewhere(path: Path) -> None:
    """The same bytes, but in a place that is not ours."""
    elsewhere = path.parents[4] / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def beside(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.parent / name).write_bytes(content)


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    **{f"bit flipped in {name}": (name, flip, name) for name in FILES},
    **{f"{name} is missing": (name, Path.unlink, name) for name in FILES[1:3]},
    "weights torn": ("model.safetensors", tear, "model.safetensors"),
    "optimizer linked elsewhere": ("optimizer.safetensors", link_elsewhere, "optimizer.safetensors"),
    "folder linked elsewhere": ("", link_elsewhere, "lies outside the store"),
    "a pickle beside the weights": ("config.json", beside("pytorch_model.bin", b"\x80\x04"), "pytorch_model.bin"),
    "an adapter beside the weights": ("config.json", beside("adapter_config.json", b"{}"), "adapter_config.json"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, list[str]]:
    """A finished trial: its folder, what it came to, its stages' keys."""
    folder = tmp_path_factory.mktemp("finished")
    log = Log(folder / "log")
    drive(folder / "store", log)
    return folder, result(folder / "store"), [event["key"] for event in log.events("acknowledged")]


def unfinished(finished: tuple[Path, Result, list[str]], folder: Path) -> tuple[StageStore, Manifest]:
    """A copy in which the last stage is still to be trained, and the record of the stage it starts from."""
    store = StageStore(shutil.copytree(finished[0] / "store", folder / "store"))
    store.forget(finished[2][CHILD])
    return store, store.read(finished[2][PARENT])


@pytest.mark.parametrize(("name", "damage", "named"), DAMAGE.values(), ids=DAMAGE)
def test_touched_stage_is_not_trained_on(finished, tmp_path, stepwise, name, damage, named) -> None:
    store, parent = unfinished(finished, tmp_path)
    folder = store.folder(parent)
    damage(folder / name if name else folder)
    with pytest.raises(StoreError) as refused:
        drive(store.root, Log(tmp_path / "log"))
    assert named in str(refused.value)
    assert "fsck --repair" in str(refused.value)
    assert stepwise("fsck", "--repair", "--store", store.root).code == 0
    assert stepwise("fsck", "--store", store.root).code == 0


@pytest.mark.parametrize("damage", ["bit flipped in model.safetensors", "a pickle beside the weights"])
def test_mended_store_ends_where_the_untouched_one_did(finished, tmp_path, stepwise, damage) -> None:
    store, parent = unfinished(finished, tmp_path)
    name, spoil, _ = DAMAGE[damage]
    spoil(store.folder(parent) / name)
    stepwise("fsck", "--repair", "--store", store.root)
    drive(store.root, Log(tmp_path / "log"))
    assert result(store.root) == finished[1]


def test_foreign_file_is_removed_alone(finished, tmp_path, stepwise) -> None:
    store, parent = unfinished(finished, tmp_path)
    foreign = store.folder(parent) / "notes.txt"
    foreign.write_text("mine")
    assert "notes.txt: named by no manifest" in stepwise("fsck", "--store", store.root).out
    stepwise("fsck", "--repair", "--store", store.root)
    assert not foreign.exists()
    store.verify(parent)
