"""Variables of the environment that count on purpose: our own, and those of other tools."""

from __future__ import annotations

import os
from textwrap import fill

VARIABLES = {
    "STEPWISE_STORE": "the store, where --store is not given",
    "STEPWISE_MIRROR": "where else committed stages go, where --mirror is not given",
    "STEPWISE_WEBHOOK": "a URL that is told how a run ends",
    "RAY_ADDRESS": "the Ray that `run` works on, where --address is not given",
    "RAY_AUTH_TOKEN": "the token of a cluster that is joined or submitted to",
    "RAY_TMPDIR, TMPDIR": "where Ray and others keep short-lived files; Ray's sockets get a folder of their own "
    "where the path is too long or not ASCII",
    "CUDA_VISIBLE_DEVICES": "the GPUs that a Ray of this command's own has",
    "MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN": "who asks the MLflow server that tracking.uri of the job names; "
    "of MLflow's other variables only those of certificates, HTTP and workspaces count for it, and none for the store",
    "MLFLOW_TRACKING_URI": "not used: a run says so where it is set; tracking.uri of the job says where records go",
    "HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE": "where Hugging Face models and data sets are kept and come from",
    "HTTP_PROXY, HTTPS_PROXY, NO_PROXY": "the way to hubs, MLflow servers, clusters and mirrors; never to this machine",
    "NO_COLOR, COLUMNS": "how a terminal is written to",
}
"""By name, what each decides. ``stepwise --help`` lists them."""

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
OF_HUB = (*PROXIES, "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listed(width: int = 80) -> str:
    """Return all variables and what they decide, as lines for a terminal."""
    says = (fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6) for text in VARIABLES.values())
    return "\n".join(f"  {name}\n{text}" for name, text in zip(VARIABLES, says, strict=True))


def set_here(*names: str) -> str:
    """Return which of these variables are set, as the end of a sentence, without their values; nothing if none is."""
    found = [name for name in names if os.environ.get(name)]
    return f" ({', '.join(found)} {'is' if len(found) == 1 else 'are'} set)" if found else ""


def reach_this_machine_directly() -> None:
    """Keep what is asked of this machine from a proxy, for this process and those it starts."""
    if any(os.environ.get(name) for name in PROXIES):
        known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        names = [name for name in known.split(",") if name]
        both = ",".join([*names, *(host for host in LOOPBACK if host not in names)])
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = both
