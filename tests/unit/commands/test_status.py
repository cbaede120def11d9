"""Where a search stands, told from the store alone; and that somebody is told when it ends."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from builders import commit_stage, metrics_of
from rich.console import Console

from orchestrator.commands import run
from orchestrator.commands.run import FAILED
from orchestrator.commands.webhook import Webhook
from orchestrator.config import Job, MultiplicationTask, Schedule
from orchestrator.errors import Problem, StoreError
from orchestrator.files import replace_file
from orchestrator.method.stage import Verdict
from orchestrator.plan import Plan, Trial
from orchestrator.report.terminal.live import Watch
from orchestrator.results.state import job_state
from orchestrator.store import StageStore, plan_for, save_job
from orchestrator.tracking import BackgroundTracker
from orchestrator.trials.chain import Chain
from orchestrator.trials.progress import ProgressFile
from orchestrator.trials.running import RunningJob
from orchestrator.trials.walk import proceed


def saved(folder: Path) -> tuple[Plan, StageStore]:
    """A job that was begun and of which nothing is committed."""
    store = StageStore(folder / "store")
    store.stages.mkdir(parents=True)
    schedule = Schedule(tokens_per_stage=3, stage_steps=10)
    job = Job(name="small", task=MultiplicationTask(digits=(1, 2)), schedule=schedule, seeds=(0, 1))
    plan = plan_for(job, store, 6)
    save_job(plan, store)
    return plan, store


def test_trial_is_in_training_as_long_as_a_process_holds_its_stage(tmp_path: Path) -> None:
    plan, store = saved(tmp_path)
    trial = plan.trials[0]
    stage = trial.stages[0]
    assert job_state("small", store).state == "unfinished"
    claim = store.claim(stage.key)
    ProgressFile(store.root, "small", trial.name).write(stage, 7, 0)
    state = job_state("small", store)
    assert (state.state, [t.state for t in state.trials]) == ("training", ["training", "waiting"])
    assert state.trials[0].steps_done == 7
    claim.release()
    assert {t.state for t in job_state("small", store).trials} == {"waiting"}


@pytest.mark.parametrize(
    ("minutes", "pace", "quiet"),
    [(14, 1.0, False), (16, 1.0, True), (16, 0.0, True), (16, 0.001, False), (60, 0.001, True)],
    ids=["not long", "long", "before its second sign", "long, but it is that slow", "long even for it"],
)
def test_trial_that_shows_no_step_is_said_to(
    tmp_path: Path, stepwise: Callable, minutes: int, pace: float, quiet: bool
) -> None:
    plan, store = saved(tmp_path)
    trial = plan.trials[0]
    stage = trial.stages[0]
    claim = store.claim(stage.key)
    file = ProgressFile(store.root, "small", trial.name)
    file.write(stage, 7, 0)
    replace_file(
        file.path,
        file.read().model_copy(update={"at": time.time() - 60 * minutes, "steps_per_second": pace}).model_dump_json(),
    )
    assert (job_state("small", store).trials[0].quiet_seconds is not None) is quiet
    told = f"no step: {minutes}:0" if minutes < 60 else "no step: 1 h"
    assert (told in stepwise("status", "small", "--store", store.root).out) is quiet
    said = io.StringIO()
    with Watch(RunningJob(plan, store), Console(file=said, width=200), 0.0) as watch:
        watch.refresh()
    assert said.getvalue().count("no step:") == quiet
    claim.release()


def test_status_without_a_job_lists_the_jobs_of_the_store(tmp_path: Path, stepwise: Callable) -> None:
    plan, store = saved(tmp_path)
    go(plan.trials[0], store, "good")
    give_up(plan.trials[1], store)
    save_job(plan_for(plan.job.model_copy(update={"name": "aside"}), store, 6), store)
    damaged = store.root / "jobs/another/job.json"
    replace_file(damaged, "{")
    listed = stepwise("status", "--store", store.root)
    assert [row.split() for row in listed.out.splitlines()[1:]] == [
        ["aside", "2", "1", "0", "1", "4", "finished"],
        ["small", "2", "1", "0", "1", "4", "finished"],
    ]
    assert listed.code == 1 and f"another: error[STO005] {damaged}" in listed.err
    states = json.loads(stepwise("status", "--store", store.root, "--json").out)
    assert [state["job"] for state in states] == ["aside", "small"]


def test_status_of_a_store_without_jobs_is_refused(tmp_path: Path, stepwise: Callable) -> None:
    missing = stepwise("status", "--store", tmp_path / "none")
    assert (missing.code, "STO011" in missing.err) == (2, True) and not (tmp_path / "none").exists()


def test_looking_at_a_stage_does_not_keep_it_from_being_taken(tmp_path: Path) -> None:
    plan, store = saved(tmp_path)
    key = plan.trials[0].stages[0].key
    assert not store.claimed(key)
    claim = store.claim(key)
    assert store.claimed(key)
    claim.release()
    assert not store.claimed(key)
    assert store.claim(key)


def test_status_without_a_cluster_reads_the_store(tmp_path: Path, stepwise: Callable) -> None:
    _, store = saved(tmp_path)
    done = stepwise("status", "small", "--store", store.root, "--json")
    document = json.loads(done.out)
    assert (done.code, document["state"], document["submission"]) == (0, "unfinished", None)
    assert [trial["trial"] for trial in document["trials"]] == ["stepwise-seed0", "stepwise-seed1"]
    assert "stepwise-seed1" in stepwise("status", "small", "--store", store.root).out


def test_status_when_the_cluster_is_gone_says_so_and_reads_the_store(tmp_path: Path, stepwise: Callable) -> None:
    _, store = saved(tmp_path)
    (tmp_path / "gone.yaml").write_text(f"address: http://127.0.0.1:9\nstore: {store.root}\n")
    done = stepwise("status", "small", "--cluster", tmp_path / "gone.yaml")
    assert done.code == 0
    assert "does not answer" in done.out and "small: unfinished" in done.out


def give_up(trial: Trial, store: StageStore) -> None:
    """Every attempt of its first stage gets stuck."""
    go(trial, store, "stuck")


def go(trial: Trial, store: StageStore, verdict: Verdict) -> None:
    """To its end, every attempt with this verdict."""
    chain = Chain.begin(trial)
    while stage := chain.next:
        chain = proceed(chain, commit_stage(store, stage, metrics_of(stage, 0.0), verdict, "flat"))


class Receiver(BaseHTTPRequestHandler):
    """Of posts, at any path but ``/broken``."""

    posted: ClassVar[list[dict]] = []

    def do_POST(self) -> None:
        self.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(500 if self.path == "/broken" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(Receiver, "posted", [])
        monkeypatch.setenv("STEPWISE_WEBHOOK", f"http://127.0.0.1:{server.server_port}/secret")
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, FAILED), (KeyboardInterrupt(), 130), (StoreError(Problem("CKP009", "x", "y")), 2), (RuntimeError("x"), 1)],
)
def test_somebody_is_told_once_of_a_trial_that_gives_up_and_however_the_command_ends(
    tmp_path: Path, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int
) -> None:
    plan, store = saved(tmp_path)
    give_up(plan.trials[0], store)  # in an earlier command, which told it

    def train(running: RunningJob, tick: Callable[[], None], at: None) -> None:
        give_up(plan.trials[1], store)
        tick()
        if error:
            raise error

    monkeypatch.setattr(run, "run_trials", train)
    monkeypatch.setattr(BackgroundTracker, "_deliver", lambda *_: None)
    with pytest.raises(type(error)) if error else nullcontext():
        assert run.run_job(Path("small"), (), store.root, Console(file=io.StringIO())) == FAILED
    gave_up, ended = Receiver.posted
    assert (gave_up["event"], gave_up["trial"], gave_up["job"]) == ("gave up", plan.trials[1].name, "small")
    assert (ended["event"], ended["exit_code"]) == ("ended", code)
    assert set(ended["gave_up"]) == {trial.name for trial in plan.trials}


def test_webhook_that_is_broken_fails_nothing_and_its_url_is_never_shown(
    tmp_path: Path, receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = saved(tmp_path)
    said: list[str] = []
    for url in (f"http://127.0.0.1:{receiver.server_port}/broken", "http://127.0.0.1:9/secret", "secret"):
        monkeypatch.setenv("STEPWISE_WEBHOOK", url)
        webhook = Webhook(plan, store, said.append)
        webhook.start()
        webhook.end(3)
    assert said == [
        f"STEPWISE_WEBHOOK was not told: {kind}" for kind in ("HTTPError", "ConnectionError", "MissingSchema")
    ]
    monkeypatch.delenv("STEPWISE_WEBHOOK")
    webhook = Webhook(plan, store, said.append)
    webhook.start()
    webhook.end(0)
    assert len(Receiver.posted) == 1
