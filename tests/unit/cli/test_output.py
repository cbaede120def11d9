"""What a stranger's terminal, pipe, disk and data do to what is printed: nothing is lost, and nothing is obeyed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import sqlite3
import struct
import subprocess
import sys
import termios
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.config import load_job
from orchestrator.store import StageStore, plan_for, save_job
from orchestrator.trials.data import prepare_data
from orchestrator.trials.runner import StageRunner, Workplace
from orchestrator.trials.walk import walk

pytestmark = pytest.mark.usefixtures("one_thread")

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e<img src=x onerror=alert(1)>|`=HYPERLINK(1)`\u009b31m 你好"
JOB = """
name = "sums"
[task]
type = "text"
train = "{train}"
validation = "{train}"
[model]
layers = 1
width = 16
heads = 2
[schedule]
tokens_per_stage = 2
stage_steps = 2
pretrain_steps = 2
[training]
batch_size = 4
[evaluation]
speed_examples = 1
speed_batch = 1
"""


def trained(folder: Path, question: str = "", file: str = "train.jsonl") -> StageStore:
    """A small job of which every stage is committed, in a store beside its file. Its questions begin as is said."""
    rows = [(f"{question} {a} + 1 + 1".strip(), f"{a} + 1 = {a + 1}", f"{a + 2}") for a in range(16)]
    lines = (json.dumps({"question": q, "cot": cot, "answer": answer}) for q, cot, answer in rows)
    (folder / file).write_text("\n".join(lines))
    (folder / "job.toml").write_text(JOB.format(train=folder / file), "utf-8")
    job, store = load_job(folder / "job.toml"), StageStore(folder / "s")
    data = prepare_data(job, store)
    plan = plan_for(job, store, data.total_tokens)
    save_job(plan, store)
    runner = StageRunner(Workplace(plan.trials[0].job, data, store))
    list(walk(plan.trials[0], runner))
    return store


def process(*words: object, environment: Mapping[str, str] = {}, after: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, its output in a pipe: to another command, or to us."""
    line = (
        f'exec {sys.executable} -m orchestrator "$@"' if not after else f'{sys.executable} -m orchestrator "$@" {after}'
    )
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "stepwise", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path, encoding: str) -> None:
    store = trained(tmp_path, "你好 Δ é")
    for words in (
        ("report", "sums", "--store", store.root),
        ("doctor", tmp_path / "job.toml", "--store", store.root),
        ("predict", "sums", "你好 Δ é 1 + 1 + 1", "--store", store.root),
        ("status", "--store", store.root),
        ("plan", "sums", "--store", store.root),
        ("schema", "--markdown"),
    ):
        done = process(*words, environment={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode(encoding) and not done.stderr, done.stderr.decode()
        if words[0] == "report" and encoding != "utf-8":
            assert b"1.0 |" in done.stdout and b"*" in done.stdout


def test_data_and_documents_are_the_same_in_every_encoding(tmp_path: Path) -> None:
    store = trained(tmp_path, "你好 Δ é")
    latin = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    written = process("data", tmp_path / "job.toml", "--limit", "1", environment=latin)
    assert written.stdout.decode() == "你好 Δ é 0 + 1 + 1||0 + 1 = 1 #### 2\n"
    found = process("doctor", tmp_path / "job.toml", "--store", store.root, "--json", environment=latin)
    assert "你好" in json.loads(found.stdout)["shown"][0]["question"]


@pytest.mark.parametrize(
    "words", [("report", "sums"), ("status",), ("plan", "sums"), ("data", "sums"), ("predict", "sums", "1 + 1")]
)
def test_closed_pipe_is_no_failure(tmp_path: Path, words: tuple[str, ...]) -> None:
    store = trained(tmp_path)
    done = process(*words, "--store", store.root, after="| true")
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    if words[0] == "report":
        assert (store.root / "jobs/sums/report/report.html").is_file()


def test_narrow_terminal_wraps_lines_and_no_words(tmp_path: Path) -> None:
    store = trained(tmp_path)
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        command = [sys.executable, "-m", "orchestrator", "report", "sums", "--store", str(store.root)]
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        done = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"})
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:
            pass  # the other end is closed
        assert done.wait(60) == 0
    finally:
        os.close(ours)
    text = said.decode()
    for word in ("removed", "examples", "verdict", "good", "stage", "Pareto"):
        assert word in text, text


def can_mount() -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
    )


@pytest.mark.skipif(not can_mount(), reason="no disk can be made read-only here")
def test_store_that_is_only_to_be_read_is_read(tmp_path: Path, stepwise: Callable) -> None:
    """Nothing is written before: no report, no tokens beside those of the run, and MLflow knows an older state."""
    store = trained(tmp_path)
    assert stepwise("track", "sums", "--store", store.root).code == 0
    (tmp_path / "other.toml").write_text((tmp_path / "job.toml").read_text().replace("sums", "other"))
    shutil.rmtree(store.root / "data")
    shutil.rmtree(store.root / "jobs/sums/report")
    with sqlite3.connect(store.root / "mlflow.db") as database:
        database.execute("DELETE FROM metrics WHERE key = 'stage/exact_match'")

    def read_only(*words: object) -> subprocess.CompletedProcess[str]:
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        command = [sys.executable, "-m", "orchestrator", *map(str, words), "--store", str(store.root)]
        inside = ["unshare", "-m", "sh", "-c", mount, str(store.root), *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=120)

    for words in (
        ("status",),
        ("plan", "sums"),
        ("doctor", "sums"),
        ("compare", "sums", "sums"),
        ("data", "sums"),
        ("predict", "sums", "1 + 1 + 1"),
        ("evaluate", "sums", "--split", "validation"),
        ("export", "sums", tmp_path / "home"),
        ("fsck",),
    ):
        done = read_only(*words)
        assert done.returncode == 0 and done.stdout, (words, done.stderr)
    reported = read_only("report", "sums")
    assert reported.returncode == 0, reported.stderr
    assert "CoT tokens removed" in reported.stdout and "Read-only file system" in reported.stdout
    assert "report   not written" in reported.stdout and ".partial" not in reported.stdout
    tracked = read_only("track", "sums")
    assert tracked.returncode == 1 and "Traceback" not in tracked.stderr
    assert "MLF001" in tracked.stderr and "readonly database" in tracked.stderr
    refused = read_only("run", tmp_path / "job.toml")
    assert refused.returncode == 2 and "STO004" in refused.stderr


def obeyed(text: str) -> list[str]:
    """The characters of a text that a terminal obeys, but for ends of lines."""
    return [char for char in text if char in "\u202e\x7f" or (char != "\n" and unicodedata.category(char) == "Cc")]


def test_text_of_others_moves_no_cursor(tmp_path: Path, stepwise: Callable) -> None:
    store = trained(tmp_path, HOSTILE)
    named = tmp_path / "\x1b[2J<b>.jsonl"
    named.write_text((tmp_path / "train.jsonl").read_text())
    for words in (
        ("doctor", tmp_path / "job.toml", f"task.train={json.dumps(str(named))}"),
        ("doctor", tmp_path / "job.toml", "--json"),
        ("predict", "sums", f"{HOSTILE} 1 + 1 + 1"),
        ("predict", "sums", f"{HOSTILE} 1 + 1 + 1", "--json"),
        ("status", "sums"),
        ("report", "sums"),
        ("run", HOSTILE),
        ("doctor", tmp_path / "job.toml", 'task.train="\x1b[2Jgone.jsonl"'),
    ):
        done = stepwise(*words, "--store", store.root)
        assert not obeyed(done.out + done.err), words
    shown = stepwise("predict", "sums", f"{HOSTILE} 1 + 1 + 1", "--store", store.root)
    assert r"\x1b]0;owned\x07\x1b[2J\u202e<img" in shown.out and shown.code == 0
    assert HOSTILE in process("data", tmp_path / "job.toml").stdout.decode()


def test_text_of_others_is_text_on_a_card(tmp_path: Path, stepwise: Callable) -> None:
    store = trained(tmp_path, HOSTILE, "<img src=x>|`a`.jsonl")
    assert stepwise("export", "sums", tmp_path / "home", "--store", store.root).code == 0
    card = (tmp_path / "home/README.md").read_text()
    assert not obeyed(card)
    outside_code = re.sub(r"```.*?```|(`+).*?\1", "", card.replace("\\`", ""), flags=re.DOTALL)
    assert "<img" not in outside_code.replace("\\<", "") and r"\<img src=x\>\|" in card


@pytest.mark.parametrize("what", ["stage", "jobs", "report", "job.json", "data"])
def test_link_does_not_lead_out_of_a_store(tmp_path: Path, stepwise: Callable, what: str) -> None:
    """A store that somebody else wrote: what it links to is neither read, nor written, nor removed."""
    store = trained(tmp_path)
    private = tmp_path / "private"
    private.mkdir()
    (private / "mine.txt").write_text("mine")
    at = {
        "stage": next(store.stages.iterdir()),
        "jobs": store.root / "jobs",
        "report": store.root / "jobs/sums/report",
        "job.json": store.root / "jobs/sums/job.json",
        "data": store.root / "data",
    }[what]
    there = private / at.name if at.exists() else private
    if at.exists():
        at.rename(there)
    at.symlink_to(there)
    before = {path: path.stat().st_mtime_ns for path in private.rglob("*")}
    words = ("doctor", tmp_path / "job.toml") if what == "data" else ("report", "sums")
    refused = stepwise(*words, "--store", store.root)
    assert refused.code == 2 and "STO009" in refused.err and "leads out of the store" in refused.err, refused
    stepwise("fsck", "--repair", "--store", store.root)
    assert {path: path.stat().st_mtime_ns for path in private.rglob("*")} == before and at.is_symlink()


@pytest.mark.parametrize("what", ["huge", "deep", "fifo"])
@pytest.mark.parametrize("record", ["manifest", "job"])
def test_record_that_is_none_is_refused(tmp_path: Path, stepwise: Callable, record: str, what: str) -> None:
    store = trained(tmp_path)
    file = next(store.stages.glob("*/manifest.json")) if record == "manifest" else store.root / "jobs/sums/job.json"
    file.unlink()
    if what == "huge":
        with file.open("wb") as sparse:
            sparse.truncate(1 << 40)
    elif what == "deep":
        file.write_text("[" * 200_000)
    else:
        os.mkfifo(file)
    refused = stepwise("report", "sums", "--store", store.root)
    assert refused.code == 2 and str(file) in refused.err and "Traceback" not in refused.err, refused


def test_hints_can_be_typed(tmp_path: Path, stepwise: Callable) -> None:
    store = trained(tmp_path)
    moved = tmp_path / "a store; with $blanks"
    store.root.rename(moved)
    shutil.rmtree(next((moved / "stages").iterdir()))
    shown = stepwise("status", "sums", "--store", moved)
    [hint] = re.findall("otherwise run `(stepwise run [^`]*)`", shown.out)
    assert shlex.split(hint) == ["stepwise", "run", "sums", "--store", str(moved)]
