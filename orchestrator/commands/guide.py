"""Shows the project's pages in the terminal, from the installed package.

Pages of the package lie in its rooms. ``orchestrator/guide/`` holds links to the pages beside the package: a wheel has
their text in the links' places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

import orchestrator

PACKAGE = Path(orchestrator.__file__).parent
WIDEST = 120
"""The columns of a page on a wider terminal."""


@dataclass(frozen=True)
class Topic:
    """A page, or one section of it."""

    page: str
    """The page's path inside the package."""
    line: str
    """A line about what the page answers."""
    section: str = ""
    """The heading of the section, if the topic is not the whole page."""

    def text(self) -> str:
        """Return the topic as Markdown."""
        page = (PACKAGE / self.page).read_text("utf-8")
        return f"## {self.section}\n" + _sections(page)[self.section] if self.section else page


TOPICS = {
    "start": Topic("guide/start.md", "the front page: what Stepwise is, first commands, where things are"),
    "words": Topic("README.md", "what job, trial, stage, attempt, verdict, frontier and the others mean", "Words"),
    "run": Topic("README.md", "what happens from `stepwise run` to the report", "The way of a job"),
    "exit": Topic("README.md", "what a command's exit code says", "Exit codes"),
    "errors": Topic("ERRORS.md", "every error code: what it means, what to do"),
    "package": Topic("README.md", "the code: its rooms and the rules between them"),
    "data": Topic("guide/jobs.md", "from a JSONL file of your own to a trained model", "Your own data in ten minutes"),
    "tasks": Topic("guide/jobs.md", "JSONL, Parquet, text, GSM8K, Hugging Face datasets", "Tasks"),
    "models": Topic("guide/jobs.md", "models from scratch, pretrained ones, LoRA, ICoT-KD", "Models"),
    "memory": Topic("guide/jobs.md", "micro-batches, gradient checkpointing, FSDP2", "Memory and speed"),
    "search": Topic("guide/jobs.md", "grids, random search, Optuna; more seeds, forks, comparisons", "Search"),
    "use": Topic("guide/jobs.md", "predict, evaluate, export, probe", "Use what you trained"),
    "jobs": Topic("guide/jobs.md", "all of the page on jobs, with the paper's nine"),
    "restarts": Topic("stability/README.md", "when a stage has failed, and what the trial does then"),
    "report": Topic("report/README.md", "the terminal, the report, the notebook, MLflow"),
    "clusters": Topic("guide/clusters.md", "submit to a Ray cluster; nodes that go; the mirror"),
    "docker": Topic("guide/docker.md", "images and a compose file"),
    "results": Topic("guide/results.md", "what was measured: accuracy, restarts, speed, limits"),
}
"""The topics of `stepwise guide`, in the order of its list."""


def show(topic: Topic, console: Console) -> None:
    """Print a topic, wrapped to the terminal."""
    text = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", topic.text())  # a link within the page leads nowhere here
    page = Markdown(text, hyperlinks=False)
    console.print(page, width=min(console.width, WIDEST), soft_wrap=False)


def list_topics(console: Console) -> None:
    """Print every topic in a line."""
    table = Table.grid(padding=(0, 2))
    for name, topic in TOPICS.items():
        table.add_row(name, topic.line)
    console.print(table)


def _sections(page: str) -> dict[str, str]:
    """Return a page's sections of the second level by their headings."""
    parts = page.split("\n## ")[1:]
    return dict(part.split("\n", 1) for part in parts)
