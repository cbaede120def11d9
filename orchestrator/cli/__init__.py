"""The command line: verbs, arguments and exit codes; no logic."""

from orchestrator.cli.program import main

__all__ = ["main"]
