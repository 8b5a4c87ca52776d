"""Define the claims, their primary contrasts, and the heights that matter.

If they change after results of a study are known, its verdicts are exploratory; reports must mention this.
"""

# Written before any result was read. Each claim has one primary contrast; other results are exploratory.

from __future__ import annotations

from typing import Final

from analysis.load.arms import MATCHED_STEPS, RANDOM_FROZEN, REINITIALISED, SAME_TASK, SCRATCH

STATEMENT: Final = {
    "C1": "Epoch-wise double descent is more pronounced when the target set is large enough",
    "C2": "A larger source set can slow down target training: interpolation comes later",
    "C3": "The frozen count decides whether transfer is effectively under- or over-parameterised",
    "C4": "Freezing fewer layers can show double descent, its peak near the edge of interpolation",
    "C4b": "Below the head, too: the test error falls, rises to a peak near the edge, and falls again",
    "C5a": "With too many frozen layers a less related source is better than a more related one, or "
    "on par with it",
    "C5b": "Double descent can make a less related source better than a more related one",
}

PRIMARY: Final = {
    "C1": "At the largest label noise, epoch-wise curves pooled over cells, each moved to its own edge of "
    "interpolation: height of the peak near that edge (the smaller of its rise and its fall), largest "
    "target size − smallest, of those sizes whose mean train error crosses ε within the curve; and the "
    "height at the larger size is above zero.",
    "C2": "log10 of the epoch at which the train error crosses ε, largest source size − smallest, in "
    "cells where in every seed at least one of the two gets there.",
    "C3": "log2 of the largest target size that is interpolated, fewest frozen layers − most, each "
    "capacity taken per seed and averaged over seeds.",
    "C4": "At the largest label noise, all curves over trained parameters (test error, mean of the last "
    "window of epochs) whose mean train error crosses ε, each moved to its own edge of interpolation, as "
    "one curve: height of its peak near that edge (the smaller of its rise and its fall). A bump farther "
    "away that is shown to be higher by 0.01 counts against it.",
    "C4b": "As C4, with the cuts at which the head reads a part of its features added to every curve; and "
    "the test error with the fewest features − with all features, head only, is above zero.",
    "C5a": "Test error of the more related source − the less related, most frozen layers: not below "
    "−0.01; and it is either above zero there, or below zero over the lower half of the frozen counts; "
    "and, unless it is above zero there, both sources are better than random frozen layers, or, without "
    "such an arm, than halfway from chance to their best cut.",
    "C5b": "Test error of the more related source − the less related, mean of the two frozen counts at "
    "the edge of interpolation: above zero, and more than with the most frozen layers; and the more "
    "related source shows freezing-wise double descent, as in C4.",
}

# One percentage point of error: the height that matters, and the margin of "on par".
ERROR: Final = 0.01
# Thresholds of interpolation at which C4 is reported, since ε moves the edge.
EPSILONS: Final = (0.001, 0.01, 0.05, 0.1)
# 10 % longer: the slowing that matters, in log10 of epochs. log10(1.1) is a literal, since its last bit
# depends on the CPU.
SLOWER: Final = 0.04139268515822507
# One doubling of the target size: the difference in capacity that matters.
DOUBLING: Final = 1.0

RIVALS: Final = {
    SAME_TASK: "fragile co-adaptation: the same task, other images",
    RANDOM_FROZEN: "capacity alone: frozen layers that learnt nothing",
    REINITIALISED: "features against optimisation: new values above the cut",
    SCRATCH: "the target alone",
    MATCHED_STEPS: "a longer training of the larger source: equally many steps for each",
}
