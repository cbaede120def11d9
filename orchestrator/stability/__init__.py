"""From signals to a verdict to a restart: pure numbers, no torch, no ray, no store."""

from orchestrator.stability.detect import Alarm, Judgement, consolidated, gate, judge, recovered
from orchestrator.stability.policy import (
    AttemptFacts,
    Budget,
    GiveUp,
    Onward,
    Pace,
    Restart,
    next_move,
    next_pace,
    next_seed,
)
from orchestrator.stability.signals import Block, Blocks, History
from orchestrator.stability.thresholds import Expected, Rule, Thresholds, target_loss

__all__ = [
    "Alarm",
    "AttemptFacts",
    "Block",
    "Blocks",
    "Budget",
    "Expected",
    "GiveUp",
    "History",
    "Judgement",
    "Onward",
    "Pace",
    "Restart",
    "Rule",
    "Thresholds",
    "consolidated",
    "gate",
    "judge",
    "next_move",
    "next_pace",
    "next_seed",
    "recovered",
    "target_loss",
]
