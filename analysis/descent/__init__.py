"""Decide whether a curve shows double descent, with pure functions on arrays."""

from analysis.descent.judge import (
    EPSILON,
    FIRST_DESCENT,
    INCONCLUSIVE,
    MIN_SHARE,
    NONE,
    SEARCH,
    SEARCH_LEVEL,
    STRONG,
    WEAK,
    WINDOWED,
    Judgement,
    Rule,
    judge,
    judge_epochs,
    judge_freezing,
    search_guard,
)

__all__ = [
    "EPSILON",
    "FIRST_DESCENT",
    "INCONCLUSIVE",
    "MIN_SHARE",
    "NONE",
    "SEARCH",
    "SEARCH_LEVEL",
    "STRONG",
    "WEAK",
    "WINDOWED",
    "Judgement",
    "Rule",
    "judge",
    "judge_epochs",
    "judge_freezing",
    "search_guard",
]
