"""CIFAR-10: is the edge of interpolation one of capacity, or of learning rate × length? C3, C4

    command   study register reduced_lengths && study run reduced_lengths --data DIR
    cost      2.4e13 floating-point operations; ten seeds are trained as one network
    Runs      250: 10 sources and 240 cells

The cuts around the edge of `reduced`, from the near source to 250 images, at three learning rates and for
four times the epochs. The rate is constant, so every shorter length is a prefix: the train error over the
epochs shows when each cut interpolates. `reduced_rates` changed the rate or the length, not both.

    axis            values                                        unit
    source task     tiny-near (16×16)
    source size     5,000                                         images
    target task     cifar10 (16×16)
    target size     250                                           images
    label noise     0.2                                           fraction of the target's labels
    frozen          8, 9                                          layers of 10
    channels        0, 1, 2, 4, … 32                              of the layer before the head, trained
    learning rate   3e-4, 1e-3, 3e-3
    epochs          1,600
    width           4                                             channels of the stem
    seed            40 to 49                                      replicates of source and target alike

If capacity decides, the first cut with a train error of at most 0.1 is the same at all rates after 1,600
epochs, and later epochs do not move it. If learning rate × length decides, they can replace each other: at
a third of the rate and three times the epochs, the edge is at the same cut. Before the registration, only
`reduced_rates` (1,000 images from CIFAR-100, seeds 0 to 4) and the results of `reduced_fast` (3e-3, 400
epochs, the same seeds) were known.
Result: rate and length can replace each other (`analysis/results/README.md`).
"""

from dataclasses import replace
from typing import Final

from search_spaces import _reduced

__all__ = ["RUNS", "TASKS"]

TASKS: Final = _reduced.TASKS

_RECIPE: Final = replace(_reduced.RECIPE, num_epochs=1_600, seeds_together=10)

RUNS: Final = _reduced.cells(
    source_task=_reduced.RELATED[0],
    source_recipe=replace(_reduced.SOURCE_RECIPE, seeds_together=10),
    target_size=250,
    frozen=(8, 9),
    recipe=tuple(replace(_RECIPE, learning_rate=rate) for rate in (3e-4, 1e-3, 3e-3)),
    seed=range(40, 50),
)
