"""Imports only go down, and each heavy library has its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "orchestrator"
MODULES = sorted(PACKAGE.rglob("*.py"))

LEVELS = [
    {"shown", "identity", "failpoints"},
    {"errors", "environment"},
    {"files", "delivery"},
    {"config"},
    {"labels"},
    {"tasks", "stability"},
    {"method"},
    {"plan"},
    {"store"},
    {"trials"},
    {"results"},
    {"tracking", "report"},
    {"ray"},
    {"submit"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""From the bottom up. Rooms of one level do not know each other."""

HOMES = {
    "ray": {"ray", "submit"},
    "mlflow": {"tracking"},
    "torch": {"method", "trials", "ray", "commands"},
    "transformers": {"method", "trials", "commands"},
    "datasets": {"tasks"},
    "peft": {"method"},
    "typer": {"cli"},
    "matplotlib": {"report"},
    "optuna": {"ray"},
}
"""The rooms in which a library may be imported at all."""

LIGHT = [
    "cli",
    "commands.run",
    "config",
    "errors",
    "identity",
    "plan",
    "ray.tune",
    "report",
    "results.findings",
    "stability",
    "store",
    "submit.submit",
    "tasks",
    "tracking",
    "trials.chain",
    "trials.walk",
]
"""Modules whose import costs neither torch nor ray nor mlflow."""

SHARED_NAMES = {
    "evaluate": "the method's, and the verb",
    "fork": "a fork's plan, and the verb",
    "predict": "the method's, and the verb",
    "train": "the paper's loop, and Ray Train",
}
"""Names that modules of two rooms have, and why."""


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or anywhere else."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: Path) -> set[str]:
    """The other rooms of the package that a file imports."""
    rooms = {name.split(".")[1] for name in imports(module) if name.startswith("orchestrator.")}
    return (rooms & set().union(*LEVELS)) - {room(module)}


def level(name: str) -> int:
    return next(i for i, rooms in enumerate(LEVELS) if name in rooms)


def test_every_room_has_its_level():
    assert {room(module) for module in MODULES} - {"__init__"} <= set().union(*LEVELS)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_from_levels_below(module):
    if room(module) == "__init__":
        assert own_imports(module) == set()
        return
    above = {name for name in own_imports(module) if level(name) >= level(room(module))}
    assert above == set()


@pytest.mark.parametrize("folder", ["jobs", "tests/benchmarks", "tests/browser", "tests/cluster", "tests/faults"])
def test_programs_that_ci_does_not_run_import_what_there_is(folder):
    for program in sorted((PACKAGE.parent / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(program.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator"):
                missing = [name.name for name in node.names if not hasattr(import_module(node.module), name.name)]
                assert not missing, f"{program}: {node.module} has no {missing}"


def test_rooms_import_each_other_without_a_circle():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        graph.setdefault(room(module), set()).update(own_imports(module))
    assert set(TopologicalSorter(graph).static_order()) >= {"cli", "store", "config"}


def test_no_two_modules_share_a_name_without_a_reason():
    names = Counter(module.stem for module in MODULES if module.stem != "__init__")
    assert {name for name, number in names.items() if number > 1} == SHARED_NAMES.keys()


def test_no_two_classes_share_a_name():
    names = Counter(
        node.name
        for module in MODULES
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, number in names.items() if number > 1] == []


@pytest.mark.parametrize(("library", "rooms"), HOMES.items(), ids=HOMES)
def test_library_is_imported_only_in_its_rooms(library, rooms):
    found = {room(module) for module in MODULES if library in {name.split(".")[0] for name in imports(module)}}
    assert found <= rooms


def test_light_modules_import_without_the_heavy_libraries():
    names = ", ".join(f"orchestrator.{name}" for name in LIGHT)
    program = f"import sys, {names}; print(sorted({{'torch', 'ray', 'mlflow', 'transformers'}} & sys.modules.keys()))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
