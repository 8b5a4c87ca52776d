"""The claims of the paper, each decided from a study: holds, does not hold, or cannot tell."""

from analysis.claims.answers import Verdict
from analysis.claims.c1_to_c4 import c1, c2, c3, c4
from analysis.claims.c5 import c5a, c5b
from analysis.claims.decide import claims

__all__ = ["Verdict", "c1", "c2", "c3", "c4", "c5a", "c5b", "claims"]
