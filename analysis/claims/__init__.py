"""The claims of the paper, each decided from a study: holds, does not hold, or cannot tell."""

from analysis.claims.c5 import c5a, c5b
from analysis.claims.decide import c1, c2, c3, c4, claims

__all__ = ["c1", "c2", "c3", "c4", "c5a", "c5b", "claims"]
