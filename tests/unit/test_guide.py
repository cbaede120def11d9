"""The pages, held to the program: what they name is there, what they say to type is what it takes."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest
import typer.main

from orchestrator.cli.verbs import app
from orchestrator.commands.guide import PACKAGE, TOPICS
from orchestrator.config import Job
from orchestrator.stability import Thresholds

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("jobs", "clusters", "docker", "orchestrator", "tests")
PAGES = sorted(
    [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md"]
    + [page for folder in FOLDERS for page in (REPOSITORY / folder).rglob("*.md") if not page.is_symlink()]
)
NOT_RUN = "bash not-run"
"""The info string of a block whose commands take a store, a cluster, a network or hours: no test runs them."""
RUN_ELSEWHERE = {
    "pip install .": ".ci/run installs a checkout",
    'pip install ".[test]"': ".ci/run",
    "pytest": ".ci/run",
    "stepwise data jobs/paper/mult_4x4.toml --split train | sha256sum": "tests/unit/tasks/test_multiplication.py",
}
"""Commands of blocks that a test runs, and where, if not here."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The block's commands, without their comments; a line that ends in a backslash goes on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := re.sub(r"(^|\s)#\s.*", "", line).strip())]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, also of its lists."""
    fenced = re.findall(r"^ *```([^\n`]*)\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(page, language, dedent(text)) for language, text in fenced]


def section(page: Path, heading: str) -> str:
    """Return a page's section of the second level."""
    return page.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


def test_front_page_is_short_and_its_lines_too() -> None:
    lines = (REPOSITORY / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


def defined(file: Path, wanted: str) -> bool:
    """Return whether a module defines a function, a class or a class's method at its top."""
    body: list[ast.stmt] = ast.parse(file.read_text("utf-8")).body
    for part in wanted.split("."):
        found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return True


def test_things_are_where_the_front_page_says() -> None:
    rows = re.findall(
        r"^\| (.+?) \| \[\S+\]\((\S+)\) \| `(\S+)` \|$",
        section(REPOSITORY / "README.md", "Where things are"),
        re.MULTILINE,
    )
    for thing in ("Δ", "λ", "label mask", "optimizer reset", "Muon", "spot check", "commit", "restart"):
        assert any(thing in what for what, _, _ in rows)
    for library in ("Ray Train", "Ray Tune", "MLflow"):
        assert any(library in what for what, _, _ in rows)
    missing = [row for row in rows if not defined(REPOSITORY / row[1], row[2])]
    assert not missing


def test_the_two_trees_are_the_folders_that_there_are() -> None:
    front = blocks(REPOSITORY / "README.md")[-1].text
    (package,) = [block.text for block in blocks(REPOSITORY / "orchestrator/README.md") if block.text[:4] == "cli/"]
    assert front == package
    folders = {path.name for path in (REPOSITORY / "orchestrator").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert set(re.findall(r"^(\w+)/", front, re.M)) == folders
    modules = {path.name for path in (REPOSITORY / "orchestrator").glob("*.py") if path.name[0] != "_"}
    assert set(re.findall(r"(?<!/)\b\w+\.py", front)) == modules


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """Return a page's headings as the forge writes them in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PROGRAM = typer.main.get_command(app)


def refused(command: str, *, whole: bool = True) -> str:
    """Return why the program would not take a command's words; nothing if it would. No verb is run.

    ``whole``: whether all that the verb needs has to be there.
    """
    words = shlex.split(re.split(r"\s(?:\||>|&$|&&|;)\s?", command)[0])[1:]
    verb = PROGRAM.commands.get(words[0])
    if verb is None:
        return f"no verb {words[0]}"
    try:
        verb.make_context(words[0], words[1:], help_option_names=[])
    except Exception as error:
        if whole or type(error).__name__ != "MissingParameter":
            return f"{command}: {error}"
    return ""


def test_command_with_a_misspelt_word_is_refused() -> None:
    assert refused("stepwise rum jobs/quickstart.toml")
    assert refused("stepwise plan jobs/quickstart.toml --stor x")
    assert refused("stepwise plan")
    assert not refused("stepwise plan", whole=False)


def stepwise_commands(block: Block) -> Iterator[str]:
    for command in block.commands:
        yield from re.findall(r"\bstepwise (?!=).*?(?= && |; |$)", command)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_is_one(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    wrong = [
        refused(command)
        for block in blocks(page)
        if block.language.startswith("bash")
        for command in stepwise_commands(block)
    ]
    spans = re.findall(r"(?<!`)`(stepwise [a-z]+[^`\n]*)`(?!`)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S))
    wrong += [refused(span.replace("…", ""), whole=False) for span in spans]
    assert [words for words in wrong if words] == []


def test_a_block_of_commands_says_whether_a_test_runs_it() -> None:
    known = {"bash", NOT_RUN, "toml", "json", "python", ""}
    assert [block for block in ALL_BLOCKS if block.language not in known] == []
    hidden = re.compile(r"^(stepwise|pip|pytest|python|kill) ", re.M)
    assert [block for block in ALL_BLOCKS if block.language == "" and hidden.search(block.text)] == []


RUN = {f"{name(block.page)}: {block.commands[0]}": block for block in ALL_BLOCKS if block.language == "bash"}


@pytest.mark.parametrize("block", RUN.values(), ids=RUN)
def test_commands_do_what_their_page_says(
    block: Block, tmp_path: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs them one after the other, in a folder with the jobs; `stepwise run` up to its training."""
    (tmp_path / "jobs").symlink_to(REPOSITORY / "jobs")
    monkeypatch.chdir(tmp_path)
    for command in [part for line in block.commands for part in line.split(" && ")]:
        if command in RUN_ELSEWHERE:
            continue
        program, *words = shlex.split(command)
        assert program == "stepwise"
        finished = stepwise(*words, *(["--dry-run"] if words[0] == "run" else []))
        assert finished.code == 0, finished.err


def test_job_of_the_front_page_plans(tmp_path: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = [block.text for block in blocks(REPOSITORY / "README.md") if block.language == "toml"]
    assert len(job.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(job)
    rows = [
        json.dumps({"question": f"{a} plus {b}", "cot": f"{a} + {b} = {a + b}", "answer": f"{a + b}"})
        for a in range(10)
        for b in range(10)
    ]
    assert re.findall(r"a line: (\{.*\})", job)[0] in rows
    for number, file in enumerate(["train.jsonl", "valid.jsonl"]):
        Path(file).write_text("\n".join(rows[number::2]))
    for verb in ("doctor", "plan"):
        finished = stepwise(verb, "mine.toml")
        assert finished.code == 0, finished.err


def test_doctor_and_plan_say_of_the_guides_data_what_it_shows(
    tmp_path: Path, stepwise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own-data guide, as a reader types it: up to the training."""
    page = tmp_path / "guide.md"
    page.write_text(section(REPOSITORY / "jobs/README.md", "Your own data in ten minutes"))
    found = blocks(page)
    monkeypatch.chdir(tmp_path)
    (make,), (row,), (job,) = (
        [block.text for block in found if block.language == language] for language in ("python", "json", "toml")
    )
    exec(make, {})  # noqa: S102
    Path("sums.toml").write_text(job)

    first = Path("train.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == json.loads(row)
    shown = next(block.text for block in found if block.text.startswith("$ stepwise doctor"))
    said = stepwise("doctor", "sums.toml").out + stepwise("plan", "sums.toml").out
    for line in shown.splitlines():
        if line != "..." and not line.startswith(("$", "about")):
            assert line in said.splitlines()


def test_snippets_of_job_files_have_the_fields_that_there_are() -> None:
    whole = {"name": "snippet", "task": {"digits": [2, 2]}}
    for block in ALL_BLOCKS:
        if block.language == "toml":
            assert Job.model_validate(whole | tomllib.loads(block.text)), block.page


def test_pages_have_the_thresholds_that_there_are() -> None:
    numbers = Thresholds()
    restarts = " ".join((REPOSITORY / "orchestrator/stability/README.md").read_text("utf-8").split())
    for words in (
        f"{numbers.floor_share:g} of their entropy",
        f"less than {numbers.flat:g} a stage",
        f"within {numbers.recovery_factor:g} times",
        f"{numbers.solved_from * 100:g} % right answers",
    ):
        assert words in restarts
    jobs = " ".join((REPOSITORY / "jobs/README.md").read_text("utf-8").split())
    assert f"until {numbers.cooldown_from * 100:g} % of the answers are right" in jobs


def test_guide_lists_its_topics_in_a_line_each(stepwise: Callable) -> None:
    lines = stepwise("guide").out.splitlines()
    assert [line.split()[0] for line in lines] == list(TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_guide_shows_a_topic_from_the_installed_package(topic: str, stepwise: Callable) -> None:
    finished = stepwise("guide", topic)
    assert finished.code == 0
    assert max(len(line.rstrip()) for line in finished.out.splitlines()) <= 120
    heading = TOPICS[topic].section or re.findall(r"^# (.+)", (PACKAGE / TOPICS[topic].page).read_text("utf-8"))[0]
    assert heading in finished.out.replace("\n", " ")


def test_guide_refuses_another_topic_with_those_that_there_are(stepwise: Callable) -> None:
    finished = stepwise("guide", "cooking")
    assert finished.code == 2
    assert all(topic in finished.err for topic in TOPICS)
