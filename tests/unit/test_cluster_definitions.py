"""What cannot be started here, checked by what would read it: Ray's own checks, KubeRay's schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CLUSTERS = REPOSITORY / "clusters"
MANIFESTS = sorted((CLUSTERS / "kuberay").glob("*.yaml"))
CRDS = REPOSITORY.parent / "shared/data/kuberay-crds"
RAY_UP = sorted((CLUSTERS / "ray-up").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def ray_documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in documents(path) if document["apiVersion"] == "ray.io/v1"]


def closed(schema: Any) -> Any:
    """The schema as the API server applies it: a field that it does not name is an error."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        inner = {"type": ["integer", "string"]}
    return inner


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    if not CRDS.is_dir():
        pytest.skip(f"KubeRay's schemas are not in {CRDS}")
    found = {}
    for path in CRDS.glob("*.yaml"):
        definition = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
        found[definition["spec"]["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    return found


def test_kuberay_manifests_fit_their_schemas(schemas: dict[str, Any]) -> None:
    assert {document["kind"] for document in ray_documents()} == {"RayCluster", "RayJob"}
    for document in ray_documents():
        schema = schemas[document["kind"]]
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.validate(document, schema)


def test_kuberay_schema_would_find_a_misspelt_field(schemas: dict[str, Any]) -> None:
    document = next(document for document in ray_documents() if document["kind"] == "RayCluster")
    document["spec"]["authOption"] = document["spec"].pop("authOptions")
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.validate(document, schemas["RayCluster"])


def test_kuberay_clusters_ask_for_a_token_and_nobody_is_root() -> None:
    for document in ray_documents():
        cluster = document["spec"].get("rayClusterSpec", document["spec"])
        assert cluster["authOptions"] == {"mode": "token"}
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        for pod in (group["template"]["spec"] for group in groups):
            assert pod["securityContext"]["runAsNonRoot"] is True
            for container in pod["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]
        assert "nvidia.com/gpu" in json.dumps(cluster["workerGroupSpecs"])


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
def test_ray_up_file_passes_rays_own_checks(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    assert config["available_node_types"]["gpu"]["max_workers"] == 8


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
def test_ray_up_starts_ray_closed(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    spot = "InstanceMarketOptions" in config["available_node_types"]["gpu"]["node_config"]
    assert spot == ("spot" in path.stem)
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]


@pytest.fixture
def drain(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call ``drain.sh`` on a machine of three processes, two of them nodes, where ``ray`` only says its words."""
    addresses = {"7": "127.0.0.1", "8": "127.0.0.2"}
    commands = {
        pid: ["/x/raylet/raylet", f"--node_ip_address={at}", f"--node_id=n{pid}"] for pid, at in addresses.items()
    }
    for pid, words in {"6": ["grep", "--node_ip_address=127.0.0.2"], **commands}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text("".join(f"{word}\0" for word in [*words, "--gcs-address=127.0.0.1:9"]))
    (tmp_path / "ray").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ray").chmod(0o755)

    def call(*words: str, proc: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROC": str(proc)}
        return subprocess.run([CLUSTERS / "drain.sh", *words], env=environment, capture_output=True, text=True)

    return call


@pytest.mark.parametrize(("words", "node"), [((), "n7"), (("9", "127.0.0.1"), "n7"), (("9", "127.0.0.2"), "n8")])
def test_drain_names_the_node_at_the_address(drain: Any, words: tuple[str, ...], node: str) -> None:
    assert f"drain-node --address 127.0.0.1:9 --node-id {node} " in drain(*words).stdout


def test_drain_refuses_where_there_is_no_such_node(drain: Any, tmp_path: Path) -> None:
    other, none = drain("9", "127.0.0.."), drain(proc=tmp_path / "8")
    assert (other.returncode, other.stdout) == (none.returncode, none.stdout) == (1, "")
    assert other.stderr == "no Ray node at 127.0.0.. on this machine\n"
    assert none.stderr == "no Ray node on this machine\n"


def test_local_node_joins_with_the_token_that_there_is_or_not_at_all(tmp_path: Path) -> None:
    environment = os.environ | {"TOKEN": str(tmp_path / "token")}
    command = [CLUSTERS / "local.sh", "join", "127.0.0.4"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"no token in {tmp_path / 'token'}" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_compose_holds_no_secret_and_opens_no_port_to_others() -> None:
    services = yaml.safe_load((REPOSITORY / "docker/compose.yaml").read_text())
    for name, service in services["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", key):
                assert str(value).startswith("/run/secrets/"), (name, key)
    assert all("file" in secret for secret in services["secrets"].values())


def test_every_package_of_the_images_is_locked_by_hash_at_its_pinned_version() -> None:
    """But torch for the CPU, which PyPI does not have."""
    locked = "".join((REPOSITORY / "docker" / f"requirements{part}.lock").read_text() for part in ("", "-cuda"))
    packages = re.findall(r"^(\S+)==(\S+)(?: \\\n +--hash=sha256:[0-9a-f]{64})+$", locked, re.M)
    assert len(packages) == sum(not line.startswith(" ") for line in locked.splitlines()) > 100
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (REPOSITORY / "docker/constraints.txt").read_text(), re.M))
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    assert all(pinned.get(name, version) == version for name, version in packages)
    installs = re.findall(r"pip install (.*)", (REPOSITORY / "docker/Dockerfile").read_text())
    others = [words for words in installs if not re.search(r"--require-hashes|--no-build-isolation \. ", words)]
    assert others == ["torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"]
