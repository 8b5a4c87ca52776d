"""CIFAR-10: does a penalty on the distance from the start remove the second descent? C4

    command   study register reduced_penalty && study run reduced_penalty --data DIR
    cost      1.8e13 floating-point operations; ten seeds are trained as one network
    Runs      110: 10 sources and 100 cells

For linear models, a penalty on the distance from the source's weights removes the peak (Dar, LeJeune and
Baraniuk, arXiv 2103.05621). This study is `reduced_fast` with 500 images and such a penalty,
λ/2 · Σ(θ − θ₀)² over the trained parameters with λ = 0.1 (`Recipe.l2_start`). Sources, images, labels and
seeds are the same.

    axis            values                                        unit
    source task     tiny-near (16×16)
    source size     5,000                                         images
    target task     cifar10 (16×16)
    target size     500                                           images
    label noise     0.2                                           fraction of the target's labels
    frozen          6, 7, 8, 9                                    layers of 10
    channels        0, 1, 2, 4, … 32                              of the layer before the head, trained
    width           4                                             channels of the stem
    seed            40 to 49                                      replicates of source and target alike

The peak is removed if C4 holds in `reduced_fast` and does not hold here. λ was chosen on seed 901 among
0.001, 0.01 and 0.1: only 0.1 keeps the train error above 0.6 from head only to all 32 channels. There the
test error went 0.733 (head only) → 0.724 (all channels) → 0.787 (8 layers frozen) → 0.800 (6 layers
frozen), without penalty 0.750 → 0.776 → 0.791 → 0.766. So this study expects no peak, but a rise from the
ninth layer on.
Result: no peak, but the error still rises at the last cut, so C4 is undecided
(`analysis/results/README.md`).
"""

from dataclasses import replace
from typing import Final

from search_spaces import _reduced

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = "probabilities"

TASKS: Final = _reduced.TASKS

RUNS: Final = _reduced.cells(
    source_task=_reduced.RELATED[0],
    source_recipe=replace(_reduced.SOURCE_RECIPE, seeds_together=10),
    target_size=500,
    recipe=replace(_reduced.RECIPE, learning_rate=3e-3, l2_start=0.1, seeds_together=10),
    seed=range(40, 50),
)
