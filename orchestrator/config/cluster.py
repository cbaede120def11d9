"""A cluster file: where a Ray cluster's job server is, the token that opens it, and where its store is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.config.fields import Section
from orchestrator.errors import InputError, Problem

MAX_CLUSTER_BYTES = 1 << 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def default_token_file() -> str:
    """Return the file in which Ray looks for a cluster's token."""
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


class Cluster(Section):
    """The cluster that `stepwise submit` sends a job to. It is closed unless its file opens it."""

    address: str
    """URL of Ray's dashboard, which is its job server: ``http://127.0.0.1:8265``, or the near end of a tunnel."""
    store: Annotated[str, Field(min_length=1)]
    """The store's folder as every node sees it: one file system, shared by all nodes. ``~`` and $VARIABLES stand."""
    token_file: Annotated[str, Field(default_factory=default_token_file, validate_default=True)]
    """File with the cluster's token, readable by its owner alone (mode 0600); without it the one that
    RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token. RAY_AUTH_TOKEN comes first."""
    ship_package: bool = False
    """Send this installation of Stepwise along. False: the one installed on the nodes runs."""
    python: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")] = "python"
    """The Python on the head node that has Ray, and Stepwise unless it is shipped."""
    allow_unauthenticated: bool = False
    """True: submit to a cluster without token authentication. Whoever reaches its ports can run code on it."""
    allow_plaintext: bool = False
    """True: send the token over plain HTTP to another machine, on a network that you trust."""

    @field_validator("store", "token_file")
    @classmethod
    def _expanded(cls, path: str) -> str:
        path = os.path.expandvars(os.path.expanduser(path))
        if not path.startswith("/") or "$" in path:
            raise PydanticCustomError("path", "{path} is not an absolute path", {"path": path})
        return path

    @field_validator("address")
    @classmethod
    def _plain_url(cls, address: str) -> str:
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
            raise PydanticCustomError("url", "expected http://HOST:PORT or https://HOST, without a user or a query")
        return address.rstrip("/")

    @model_validator(mode="after")
    def _token_in_clear(self) -> Cluster:
        url = urlsplit(self.address)
        if url.scheme == "http" and url.hostname not in LOOPBACK and not self.allow_plaintext:
            raise PydanticCustomError(
                "plaintext",
                "plain HTTP to another machine shows the token to the network; tunnel it (ssh -L 8265:127.0.0.1:8265 "
                "HEAD) and name http://127.0.0.1:8265, or use https, or write allow_plaintext: true",
            )
        return self


def load_cluster(path: Path) -> Cluster:
    """Read a YAML cluster file. Raises ``InputError`` with every problem."""
    try:
        data = path.read_bytes()
        document = yaml.load(data[:MAX_CLUSTER_BYTES], _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise InputError(Problem("CLU001", str(path), f"cannot be read: {error.strerror}", _EXAMPLE)) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(Problem("CLU016", str(path), f"not YAML: {' '.join(str(error).split())}", _EXAMPLE)) from None
    return valid_cluster(document, str(path))


def valid_cluster(document: Any, where: str) -> Cluster:
    """The cluster of a document. Raises ``InputError``."""
    try:
        return Cluster.model_validate(document)
    except ValidationError as error:
        problems = [
            Problem("CLU002", f"{where}: {'.'.join(map(str, detail['loc'])) or 'the file'}", detail["msg"], _EXAMPLE)
            for detail in error.errors()
        ]
        raise InputError(*problems) from None


_EXAMPLE = "clusters/local.yaml is an example"


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases, no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if len(set(map(str, keys))) < len(keys):
            raise yaml.YAMLError("a key occurs twice")
        return super().construct_mapping(node, deep)
