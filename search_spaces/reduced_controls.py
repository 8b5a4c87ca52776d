"""Real images, two CPU cores: what else could explain the curve over the frozen layers? The control arms.

    command   study register reduced_controls && study run reduced_controls --data DIR
    cost      4.6e13 floating-point operations (`study plan reduced_controls`)
    Runs      225: 10 sources and 215 cells

    arm             how                                              rival explanation
    transfer        cifar100 → half b of cifar10
    same task       half a of cifar10 → half b                       fragile co-adaptation
    random frozen   no source, frozen layers at random               capacity alone
    reinitialised   cifar100, layers above the cut re-initialised    features against optimisation
    scratch         no source, nothing frozen                        training on the target alone

All other axes are those of `reduced`, with 500 target images, seeds 0 to 4 and the cut that freezes
nothing. All arms draw the target from half b, so they differ only in the arm.
Expect: every arm rises from head only to the edge; the same task most, random layers least.
"""

from dataclasses import replace
from functools import partial

from search_spaces._reduced import BROAD, FEWER_SEEDS, FROZEN, RECIPE, TARGET, TASKS, cells
from study.grid import union

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

arm = partial(cells, target_part="b", target_size=500, frozen=(0, *FROZEN), seed=FEWER_SEEDS)

RUNS = union(
    arm(source_task=BROAD),
    arm(source_task=TARGET, source_part="a"),
    arm(source_task=None, source_size=None, source_recipe=None),
    arm(source_task=BROAD, frozen=FROZEN, recipe=replace(RECIPE, above_cut="reinitialised")),
)
