"""What must hold after every fault (research notes, reliability §3.3): a store against its history and the control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.walks import JOB, Log

from orchestrator.errors import StoreError
from orchestrator.results.frontier import frontier
from orchestrator.store import StageStore, saved_plan
from orchestrator.store.leftovers import leftovers as unnamed

MEASURED = {"examples_per_second", "examples_per_second_batched", "speedup", "seconds", "committed_at"}
"""Fields of a point that no two runs share."""


@dataclass(frozen=True)
class Result:
    """A finished job: the bytes of every stage by key, and the frontier without its clocks."""

    files: dict[str, dict[str, str]]
    frontier: list[dict[str, Any]]


def result(root: Path, job: str = JOB.name) -> Result:
    store = StageStore(root)
    manifests = [manifest for key in store.stage_keys() if (manifest := store.read(key))]
    files = {
        manifest.key: {file.path: file.sha256 for file in manifest.files if file.path.endswith(".safetensors")}
        for manifest in manifests
    }
    plan = saved_plan(job, store)
    points = frontier(plan, store) if plan else ()
    return Result(files, [point.model_dump(mode="json", exclude=MEASURED) for point in points])


def lost(root: Path, log: Log) -> list[str]:
    """Acknowledged stages that are not there as they were acknowledged (I1)."""
    return lost_of(root, [(event["key"], event["attempt"]) for event in log.events("acknowledged")])


def lost_of(root: Path, acknowledged: Iterable[tuple[str, str]]) -> list[str]:
    """Of these keys and attempts."""
    store, missing = StageStore(root), []
    for key, attempt in acknowledged:
        try:
            manifest = store.read(key)
            if manifest is None or manifest.attempt != attempt:
                raise StoreError
            store.verify(manifest)
        except StoreError as error:
            missing.append(f"{key}: {error or 'not the acknowledged attempt'}")
    return missing


def redone(log: Log, faults: int) -> Iterator[str]:
    """Work that was there and was done again: after it was acknowledged, or more of it than one stage a fault (I3)."""
    begun, acknowledged = Counter[str](), set[str]()
    for event in log.events("begin", "acknowledged"):
        if event["event"] == "acknowledged":
            acknowledged.add(event["key"])
        else:
            begun[event["key"]] += 1
            if event["key"] in acknowledged:
                yield f"{event['key']} begun after it was acknowledged"
    if (again := begun.total() - len(begun)) > faults:
        yield f"{again} stages begun again after {faults} faults"


def leftovers(root: Path) -> list[str]:
    """Whatever a killed driver could have left and nobody names; claims that are still held (I5)."""
    store, found = StageStore(root), []
    for key in store.stage_keys():
        found += [str(path.relative_to(root)) for path in unnamed(store, key)]
        claim = store.claim(key)
        if claim is None:
            found.append(f"{key}: claimed")
        else:
            claim.release()
    return found + [str(path.relative_to(root)) for path in root.rglob("*") if "partial" in path.name]


def violations(root: Path, log: Log, control: Result, faults: int) -> list[str]:
    """Everything that a finished run does not share with the control, or left behind."""
    said = [f"lost: {line}" for line in lost(root, log)]
    said += [f"redone: {line}" for line in redone(log, faults)]
    said += [f"left: {line}" for line in leftovers(root)]
    ended = result(root)
    said += [f"differs: {key}" for key in control.files | ended.files if control.files.get(key) != ended.files.get(key)]
    return said + (["the frontier differs"] if control.frontier != ended.frontier else [])
