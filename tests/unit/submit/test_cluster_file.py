"""Cluster files and tokens: what is accepted, what is refused, and that nothing is open unless it says so."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.config import Resources, load_cluster
from orchestrator.errors import InputError, StepwiseError
from orchestrator.ray.access import check_turns_strangers_away, token
from orchestrator.ray.placement import Node, fitting_trials
from orchestrator.submit.job_server import JobServer, Unreachable

GOOD = "address: http://127.0.0.1:8265\nstore: /shared/store\n"
SECRET = "0123456789abcdef"  # noqa: S105


def cluster_file(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def test_shipped_cluster_file_is_valid(repository: Path) -> None:
    cluster = load_cluster(repository / "clusters/local.yaml")
    assert cluster.store == str(Path.home() / "stepwise-store")
    assert not cluster.allow_unauthenticated


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "empty": ("", "CLU002"),
        "not YAML": ("{", "CLU016"),
        "a list": ("- 1\n", "CLU002"),
        "no store": ("address: http://127.0.0.1:1\n", "store"),
        "unknown key": (GOOD + "colour: red\n", "colour"),
        "key twice": (GOOD + "store: /other\n", "twice"),
        "alias": ("address: &a http://127.0.0.1:1\nstore: *a\n", "aliases"),
        "a python object": (GOOD + "token_file: !!python/name:os.system\n", "CLU016"),
        "relative store": ("address: http://127.0.0.1:1\nstore: here\n", "not an absolute path"),
        "password in the URL": ("address: http://me:pw@127.0.0.1:1\nstore: /s\n", "without a user"),
        "another scheme": ("address: ray://127.0.0.1:1\nstore: /s\n", "expected http"),
        "plain HTTP to another machine": ("address: http://10.0.0.1:8265\nstore: /s\n", "allow_plaintext: true"),
        "text for a switch": (GOOD + "ship_package: 'yes'\n", "ship_package"),
        "a command for python": (GOOD + "python: python; rm -rf /\n", "python"),
    }.values(),
)
def test_bad_cluster_file_is_refused_with_its_reason(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        load_cluster(cluster_file(tmp_path, text))
    assert said in str(refused.value)
    assert "pw" not in str(refused.value)


def test_plain_http_to_another_machine_is_allowed_in_writing_and_https_always(tmp_path: Path) -> None:
    plain = "address: http://10.0.0.1:8265\nstore: /s\nallow_plaintext: true\n"
    assert load_cluster(cluster_file(tmp_path, plain)).allow_plaintext
    assert load_cluster(cluster_file(tmp_path, "address: https://ray.example.org/\nstore: /s\n")).address[-1] == "g"


def test_token_is_read_only_from_a_file_of_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    file = tmp_path / "token"
    with pytest.raises(InputError, match="umask 077"):
        token(file)
    file.write_text(SECRET)
    for mode in (0o644, 0o640, 0o604):
        os.chmod(file, mode)
        with pytest.raises(InputError, match=f"CLU005.*{mode:04o}.*chmod 600"):
            token(file)
    os.chmod(file, 0o600)
    assert token(file) == SECRET


def test_token_is_looked_for_where_ray_looks_unless_the_file_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/run/secrets/ray_token")
    assert load_cluster(cluster_file(tmp_path, GOOD)).token_file.startswith("/run/secrets/")
    named = load_cluster(cluster_file(tmp_path, GOOD + f"token_file: {tmp_path}/own\n"))
    assert named.token_file == f"{tmp_path}/own"
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    assert load_cluster(cluster_file(tmp_path, GOOD)).token_file == str(Path.home() / ".ray/auth_token")


@pytest.mark.parametrize(
    ("resources", "nodes", "trials"),
    [
        ({"cpus_per_worker": 0.66}, [(2, 0)], 3),
        ({"workers": 2}, [(1, 0), (1, 0)], 1),
        ({"workers": 2, "cpus_per_worker": 2}, [(3, 0), (3, 0)], 1),
        ({"cpus_per_worker": 4}, [(2, 0), (2, 0)], 0),
        ({"gpus_per_worker": 1}, [(0, 0), (16, 4)], 4),
        ({"gpus_per_worker": 0.25}, [(16, 2)], 8),
        ({"gpus_per_worker": 0.4, "cpus_per_worker": 1}, [(16, 2)], 4),
        ({"gpus_per_worker": 1, "cpus_per_worker": 8}, [(16, 4)], 2),
    ],
)
def test_trials_that_fit_at_a_time(resources: dict, nodes: list[tuple[float, float]], trials: int) -> None:
    assert fitting_trials(Resources(**resources), [Node(*node) for node in nodes]) == trials


def test_commands_on_a_cluster_say_what_is_missing(stepwise: Callable, tmp_path: Path, repository: Path) -> None:
    job = repository / "jobs/quickstart.toml"
    assert "--cluster FILE" in stepwise("submit", job).err
    gone = cluster_file(tmp_path, "address: http://127.0.0.1:9\nstore: /nowhere\n")
    for verb in ("submit", "logs", "stop"):
        done = stepwise(verb, job, "--cluster", gone)
        assert (done.code, "CLU007" in done.err) == (1, True)
    assert "STO002" in stepwise("status", job, "--cluster", gone).err
    assert "say which job; `stepwise status --store /nowhere`" in stepwise("status", "--cluster", gone).err
    examined = stepwise("doctor", job, "--cluster", gone)
    assert examined.code == 1
    assert examined.out.startswith("FAIL  cluster: http://127.0.0.1:9: does not answer")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *((said, "CLU014.*is no Ray dashboard.*8265") for said in (b"[]", b"{}", b"<html>")),
        (b'{"ray_version": "1.0"}', "CLU011.*runs Ray 1.0"),
    ],
)
def test_server_that_is_no_ray_or_another_one_is_told(tmp_path: Path, said: bytes, expected: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"address: http://127.0.0.1:{server.server_port}\nstore: /s\n"
        for more, code in (("", "CLU006"), ("allow_unauthenticated: true\n", expected)):
            with pytest.raises(InputError, match=code):
                JobServer.connect(load_cluster(cluster_file(tmp_path, address + more)))
        server.shutdown()


@pytest.mark.parametrize(
    ("ray", "said"),
    [("closed", None), ("open", "CLU006.*asks for no token"), ("gone", "CLU006.*cannot be told.*UNAVAILABLE")],
)
def test_ray_that_does_not_refuse_a_stranger_is_not_joined(ray: str, said: str | None) -> None:
    grpc = pytest.importorskip("grpc", reason="needs pip install '.[cluster]'")

    def answer(request: bytes, context: Any) -> bytes:
        if ray == "closed":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    with ThreadPoolExecutor(1) as pool:
        gcs = grpc.server(pool)
        port = gcs.add_insecure_port("127.0.0.1:0")
        methods = {"GetClusterId": grpc.unary_unary_rpc_method_handler(answer)}
        gcs.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", methods)])
        gcs.start()
        if ray == "gone":
            gcs.stop(None).wait()
        with pytest.raises(InputError, match=said) if said else nullcontext():
            check_turns_strangers_away(f"127.0.0.1:{port}", "say so")
        gcs.stop(None).wait()


def test_job_is_taken_by_a_head_node_that_is_still_starting_and_a_refusal_is_told(tmp_path: Path) -> None:
    answers = [(500, "No available agent to submit job, please try again later."), (200, ""), (400, "no such runtime")]

    class Starting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/api/jobs/": [], "/api/version": {"version": "4", "ray_version": version("ray")}}
            self.answer(200, json.dumps(known.get(self.path, {})))

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, said = answers.pop(0)
            self.answer(code, said or json.dumps({"job_id": "1", "submission_id": sent["submission_id"]}))

        def answer(self, code: int, said: str) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            pass

    job = tmp_path / "x.toml"
    job.touch()
    with HTTPServer(("127.0.0.1", 0), Starting) as ray:
        Thread(target=ray.serve_forever, daemon=True).start()
        text = f"address: http://127.0.0.1:{ray.server_port}\nstore: /s\nallow_unauthenticated: true\n"
        server = JobServer.connect(load_cluster(cluster_file(tmp_path, text)))
        assert server.submit("x", "w", ["run", "x.toml"], job).startswith("stepwise-x-")
        with pytest.raises(StepwiseError, match=r"CLU015.*no such runtime"):
            server.submit("x", "w", ["run", "x.toml"], job)
        ray.shutdown()


@pytest.mark.parametrize(
    ("ended", "logs", "said"),
    [
        ({"status": "FAILED", "message": "no such runtime\nmore"}, None, r"CLU008.*could not answer: no such runtime"),
        ({"status": "FAILED", "driver_exit_code": 2}, "a note\nerror[STO002] x\n", r"CLU008.*error\[STO002\] x"),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, "", r"CLU008.*SUCCEEDED"),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, '[\n {\n  "name": "x"\n }\n]\nbye\n', None),
        ({"status": "FAILED", "driver_exit_code": 1}, '[1] first\n[\n {\n  "name": "x"\n }\n]\n', None),
        (None, None, r"CLU015.*refuses: .*no job"),
    ],
)
def test_what_the_head_node_answers_is_read_or_told_and_nothing_is_left(
    tmp_path: Path, ended: dict | None, logs: str | None, said: str | None
) -> None:
    deleted = []

    class Asked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/logs"):
                self.answer(200, {"logs": logs})
            elif self.path.startswith("/api/jobs/"):
                known = ended and {"type": "SUBMISSION", "submission_id": "x", "entrypoint": "y", **ended}
                self.answer(200 if known else 404, known or "no job")
            else:
                self.answer(200, {"version": "4", "ray_version": version("ray")})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(200, {"job_id": "1", "submission_id": "x"})

        def do_DELETE(self) -> None:
            deleted.append(self.path)
            self.answer(200, {"deleted": True})

        def answer(self, code: int, said: object) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "x.toml").touch()
    with HTTPServer(("127.0.0.1", 0), Asked) as ray:
        Thread(target=ray.serve_forever, daemon=True).start()
        text = f"address: http://127.0.0.1:{ray.server_port}\nstore: /s\nallow_unauthenticated: true\n"
        server = JobServer.connect(load_cluster(cluster_file(tmp_path, text)))
        if said is None:
            assert server.ask_json(["doctor"], tmp_path / "x.toml") == [{"name": "x"}]
        else:
            with pytest.raises(StepwiseError, match=said):
                server.ask_json(["doctor"], tmp_path / "x.toml")
        ray.shutdown()
    assert len(deleted) == (ended is not None)


def test_port_that_does_not_speak_http_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as caller:
                caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        Thread(target=greet, daemon=True).start()
        address = f"address: http://127.0.0.1:{server.getsockname()[1]}\nstore: /s\n"
        with pytest.raises(Unreachable, match=r"CLU007.*does not answer"):
            JobServer.connect(load_cluster(cluster_file(tmp_path, address)))
