"""MLflow away, dead, deaf or forgetful: a proxy that misbehaves, in front of a real server on SQLite.

The stages are really committed, the tracker is the driver's; training is left out. Every point must arrive
once, and telling the tracker of a stage must never wait.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from builders import commit_stage, metrics_of

from orchestrator.config import Job
from orchestrator.method.stage import LossPoint
from orchestrator.plan import Plan, build_plan
from orchestrator.stability import Block
from orchestrator.store import StageStore
from orchestrator.tracking import BackgroundTracker, Tracker, ui_command, ui_environment
from orchestrator.trials.chain import Chain
from orchestrator.trials.walk import advanced

PATIENCE = 300.0
CONTROL = "in order"
FAULTS = ("down", "reply lost", "killed in a batch", "never answers", "401", "404", "500")
"""``down``: from the start. All others begin after the first two attempts and end after the fourth; of these two
the first is stuck, so its run below the trial's is part of what must arrive."""


class Server:
    """A real MLflow server that can be killed and started again on its records."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.process = folder, _free_port(), None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ui_command(self.folder, self.port),
            env={**os.environ, **ui_environment()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.2)
        self.kill()
        raise RuntimeError("the MLflow server does not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def points(self, experiment: str) -> Counter[tuple[str, str, int, float]]:
        return points_in(self.folder / "mlflow.db", experiment)


def points_in(database: Path, experiment: str) -> Counter[tuple[str, str, int, float]]:
    """(run, metric, step, value) of every row of an experiment; the job's own run without its name.

    Superseded runs are left out: the tracker sets the job's own aside when a job that had ended goes on.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as rows:
        found = rows.execute(
            "select r.name, m.key, m.step, m.value from metrics m join runs r on r.run_uuid = m.run_uuid "
            "join experiments e on e.experiment_id = r.experiment_id "
            "join tags t on t.run_uuid = r.run_uuid and t.key = 'stepwise.level' "
            "where e.name = ? and t.value != 'superseded'",
            (f"stepwise/{experiment}",),
        )
        return Counter((run.removeprefix(experiment), key, step, value) for run, key, step, value in found)


def unfinished_runs(root: Path) -> int:
    """Runs that MLflow believes to be under way."""
    with sqlite3.connect(f"file:{root / 'mlflow.db'}?mode=ro", uri=True) as database:
        return database.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]


class Proxy:
    """Passes requests on to the server, unless ``fault`` says otherwise. ``struck``: how often it did."""

    def __init__(self, server: Server) -> None:
        self.server, self.port, self.fault, self.struck = server, _free_port(), "", 0
        self._lifted = Event()
        self._http: ThreadingHTTPServer | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = handle_any

            def log_message(self, *words: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._http.daemon_threads = True
        Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def lift(self) -> None:
        """End the fault; a server that was killed is started again."""
        fault, self.fault = self.fault, ""
        self._lifted.set()
        if fault == "killed in a batch":
            self.server.start()

    def impose(self, fault: str) -> None:
        self._lifted.clear()
        self.fault, self.struck = fault, 0

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.fault
        if fault.isdigit():
            self.struck += 1
            request.send_error(int(fault))
        elif fault == "never answers":
            self.struck += 1
            self._lifted.wait(PATIENCE)
            request.close_connection = True
        elif fault == "reply lost" and request.path.endswith("log-batch"):
            self._forward(request, body)
            self.struck += 1
            request.close_connection = True
        elif fault == "killed in a batch" and request.path.endswith("log-batch") and not self.struck:
            self.struck += 1
            self._forward(request, body, wait=False)
            self.server.kill()
            request.close_connection = True
        else:
            self._answer(request, body)

    def _answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        try:
            status, headers, content = self._forward(request, body)
        except OSError:
            request.close_connection = True
            return
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes, *, wait: bool = True
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        upstream.request(request.command, request.path, body, headers)
        if not wait:
            return 0, [], b""
        response = upstream.getresponse()
        return response.status, response.getheaders(), response.read()


@dataclass
class Delivery:
    """What came of one fault."""

    fault: str
    struck: int = 0
    missing: int = 0
    doubled: int = 0
    slowest_notify: float = 0.0
    said: list[str] = field(default_factory=list)


def deliveries(folder: Path) -> Iterator[Delivery]:
    """Every fault, one after the other, on one server; each held to a job that was recorded in order."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "3"
    with running_server(folder / "records") as server:
        proxy = Proxy(server)
        proxy.open()
        _deliver(folder, proxy, CONTROL)
        expected = server.points(_name(CONTROL))
        for fault in FAULTS:
            delivery = _deliver(folder, proxy, fault)
            found = server.points(_name(fault))
            delivery.missing = sum((Counter(expected.keys()) - Counter(found.keys())).values())
            delivery.doubled = sum(Counter(place[:3] for place in found.elements()).values()) - len(
                {place[:3] for place in found}
            )
            yield delivery
        proxy.close()


@contextmanager
def running_server(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()


def _deliver(folder: Path, proxy: Proxy, fault: str) -> Delivery:
    delivery, name = Delivery(fault), _name(fault)
    store, plan = StageStore(folder / name), make_plan(name, proxy.uri)
    tracker = BackgroundTracker(Tracker(plan, store), delivery.said.append)
    chain = Chain.begin(plan.trials[0])
    if fault == "down":
        proxy.close()
    tracker.start()
    for _ in range(2):
        chain = commit(store, chain, tracker, delivery)
    if fault == "down":
        _until(lambda: bool(delivery.said))
        delivery.struck = 1
        proxy.open()
    elif fault != CONTROL:
        _until(lambda: len(proxy.server.points(name)) > 0)
        proxy.impose(fault)
    for _ in range(2):
        chain = commit(store, chain, tracker, delivery)
    if fault not in (CONTROL, "down"):
        _until(lambda: proxy.struck > 0)
        delivery.struck = proxy.struck
        proxy.lift()
    while chain.next:
        chain = commit(store, chain, tracker, delivery)
    report = folder / f"{name}-report"
    report.mkdir()
    tracker.finish(report)
    if not tracker.close(PATIENCE):
        delivery.said.append("not delivered")
    return delivery


def commit(store: StageStore, chain: Chain, tracker: BackgroundTracker, delivery: Delivery) -> Chain:
    """The next attempt; the first at stage 2 is stuck."""
    stage, spec = chain.next, chain.next.spec
    stuck = stage.index == 2 and not chain.failures
    losses = tuple(LossPoint(step=spec.first_step + step, loss=1 / step) for step in range(1, spec.steps + 1))
    signals = dict.fromkeys(("probe_loss", "train_loss", "train_loss_max", "gradient_norm", "gradient_norm_max"), 0.1)
    ends = {"step": spec.steps, "removed_tokens": spec.removed_to, "probe_exact_match": 0.5}
    measured = {"train_loss": losses, "blocks": (Block(**ends, **signals, non_finite=0, update_ratio=1e-3),)}
    if stuck:  # nothing decodes its model
        measured |= dict.fromkeys(("generated_tokens", "examples_per_second", "examples_per_second_batched"), 0.0)
        measured |= {"examples": 0, "evaluate_seconds": 0.0}
    metrics = metrics_of(stage, 0.0 if stuck else 0.9 - stage.index / 100, **measured)
    commit_stage(store, stage, metrics, "stuck" if stuck else "good")
    began = time.monotonic()
    tracker.notify()
    delivery.slowest_notify = max(delivery.slowest_notify, time.monotonic() - began)
    return advanced(chain, store)


def make_plan(name: str, uri: str, digits: tuple[int, int] = (2, 2), tokens_per_stage: float = 4.0) -> Plan:
    schedule = {
        "tokens_per_stage": tokens_per_stage,
        "stage_steps": 50,
        "pretrain_steps": 50,
        "consolidation_stages": 2,
    }
    job = {"name": name, "task": {"digits": digits}, "schedule": schedule, "tracking": {"uri": uri}}
    return build_plan(Job.model_validate(job))


def _name(fault: str) -> str:
    return fault.replace(" ", "-")


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("waited in vain")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
