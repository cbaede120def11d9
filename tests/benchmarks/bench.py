"""What the benchmarks share: sides in processes of their own, interleaved pairs, tables, the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[2]
STEPWISE = Path(sys.executable).parent / "stepwise"

console = Console(width=110, highlight=False, soft_wrap=True)


def _busy_seconds() -> tuple[float, float]:
    """CPU seconds that the whole machine has spent, and those of this process and its finished children."""
    user, nice, system, _, _, interrupts, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    ticks = user + nice + system + interrupts + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


_BEGAN = time.perf_counter(), *_busy_seconds()


@dataclass(frozen=True)
class Figure:
    """A number that was measured, several times if it can be, and what it should be."""

    name: str
    values: tuple[float, ...]
    target: float | None = None
    unit: Literal["ratio", "seconds", "gib"] = "ratio"
    at_least: bool = True
    """Whether the target is the least it should be, or the most."""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles; of fewer than four values the extremes."""
        if len(self.values) < 4:
            return min(self.values), max(self.values)
        lower, _, upper = quantiles(self.values, n=4, method="inclusive")
        return lower, upper

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def document(self) -> dict[str, Any]:
        spread = [round(end, 4) for end in self.spread]
        return {"name": self.name, self.unit: round(self.value, 4), "target": self.target, "spread": spread}


class Side(AbstractContextManager["Side"]):
    """One side of a comparison: what ``make`` returns, called in a process with an environment of its own."""

    def __init__(self, make: Callable[[], Callable[..., Any]], environment: Mapping[str, str] | None = None) -> None:
        self._pipe, theirs = get_context("spawn").Pipe()
        with patch.dict(os.environ, environment or {}):
            self._process = get_context("spawn").Process(target=_serve, args=(make, theirs), daemon=True)
            self._process.start()
        theirs.close()

    def start(self, *arguments: Any) -> None:
        self._pipe.send(arguments)

    def result(self) -> Any:
        return self._pipe.recv()

    def __call__(self, *arguments: Any) -> Any:
        self.start(*arguments)
        return self.result()

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.join()


def _serve(make: Callable[[], Callable[..., Any]], pipe: Connection) -> None:
    call = make()
    while True:
        pipe.send(call(*pipe.recv()))


def interleaved(ours: Callable[[], Any], other: Callable[[], Any], pairs: int) -> list[tuple[Any, Any]]:
    """What both return, run after run, taking turns at who begins; a first run of each is not counted."""
    ours(), other()
    results = []
    for pair in range(pairs):
        if pair % 2:
            theirs, own = other(), ours()
        else:
            own, theirs = ours(), other()
        results.append((own, theirs))
    return results


def arguments(description: str | None, **options: tuple[type, str]) -> argparse.Namespace:
    """``--quick`` and further options, each with its type and its help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements, in under a minute")
    for name, (kind, text) in options.items():
        parser.add_argument(f"--{name}", type=kind, help=text)
    parsed = parser.parse_args()
    console.print(_machine())
    return parsed


def _machine() -> str:
    """Where and when this is, and how busy others keep it."""
    cpu = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray", "mlflow"))
    describe = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, stepwise {commit}; {cpu}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} before the start\nPython {platform.python_version()}, {versions}"
    )


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A table a person can read: words to the left, numbers to the right."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left")
    for row in rows:
        shown.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print()
    console.print(shown)


def finish(name: str, *figures: Figure, quick: bool, own_seconds: float | None = 0.0) -> None:
    """The figures beside their targets, and all of it as one line of JSON; the first figure is the headline.

    ``own_seconds``: CPU time of our own processes that were not children of this one; None where it is not known, and
    with it not what others did.
    """
    table(
        "Figures" + " (quick: too short to quote)" * quick,
        ("figure", "unit", "median", "spread", "target", ""),
        ((f.name, f.unit, f.value, "{:.3g} to {:.3g}".format(*f.spread), _target(f), _word(f)) for f in figures),
    )
    others = None if own_seconds is None else _others_share(own_seconds)
    busy = "a share that is not known" if others is None else f"{others:.0%}"
    console.print(f"meanwhile others kept {busy} of the cores busy")
    headline = figures[0].document() | {
        "figure": figures[0].name,
        "name": name,
        "quick": quick,
        "others": others and round(others, 3),
    }
    print(json.dumps(headline | {"further": [figure.document() for figure in figures[1:]]}))


def _others_share(own_seconds: float) -> float:
    """How busy everybody else kept the cores since the start: what makes a measurement a disturbed one."""
    began, machine_then, own_then = _BEGAN
    machine, own = _busy_seconds()
    elsewhere = machine - machine_then - (own - own_then) - own_seconds
    return max(0.0, elsewhere) / (os.cpu_count() or 1) / (time.perf_counter() - began)


def _target(figure: Figure) -> str:
    return "" if figure.target is None else f"{'≥' if figure.at_least else '≤'} {figure.target:g}"


def _word(figure: Figure) -> str:
    return {None: "", True: "met", False: "missed"}[figure.met]
