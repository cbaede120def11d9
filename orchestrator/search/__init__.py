"""Search: what a configuration is worth, which is best, and which are not worth going on with. Pure functions."""

from orchestrator.search.objective import Standing, area, best_line, of_configuration, standings
from orchestrator.search.pruning import Rung, reason_to_stop, rungs
from orchestrator.search.winners import full_cot_rates, winners

__all__ = [
    "Rung",
    "Standing",
    "area",
    "best_line",
    "full_cot_rates",
    "of_configuration",
    "reason_to_stop",
    "rungs",
    "standings",
    "winners",
]
