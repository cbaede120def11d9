"""The command line: verbs, arguments and exit codes; no logic."""

from orchestrator.cli.verbs import main

__all__ = ["main"]
