"""Stepwise: teaches language models to reason without writing their reasoning down.

``orchestrator.load_frontier(path)`` gives the frontier of a job as a DataFrame.
"""

from typing import Any

__all__ = ["load_frontier"]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: ``import orchestrator`` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("orchestrator.report.notebook"), name)
