"""Where a search stands, told from the store alone; and that somebody is told when it ends."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from orchestrator.config import Job, MultiplicationTask, Schedule
from orchestrator.plan import Plan
from orchestrator.runtime.notify import post_outcome
from orchestrator.runtime.progress import ProgressFile
from orchestrator.runtime.status import job_state
from orchestrator.runtime.watch import Watch
from orchestrator.store import StageStore, plan_for, replace_file, save_job


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
    with Watch(plan, store, Console(file=said, width=200), 0.0) as watch:
        watch.refresh()
    assert said.getvalue().count("no step:") == quiet
    claim.release()


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


def test_end_of_a_search_is_posted_and_its_url_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = saved(tmp_path)
    assert post_outcome(plan, store, 0) == ""
    posted = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/secret" else 500)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for path, said in (("/secret", ""), ("/broken", "STEPWISE_WEBHOOK was not told: HTTPError")):
            monkeypatch.setenv("STEPWISE_WEBHOOK", f"http://127.0.0.1:{server.server_port}{path}")
            assert post_outcome(plan, store, 3) == said
        server.shutdown()
    assert posted[0] | {"job": "small", "exit_code": 3, "trials": 2, "finished": 0, "gave_up": {}} == posted[0]
