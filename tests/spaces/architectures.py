"""Three architectures side by side on real images: the Runs of three spaces as one study.

command   study run tests/spaces/architectures.py --data <the folder of the image sets>
Runs      57: those of near_far, near_far_densenet and near_far_vit, none of them trained again
"""

import near_far
import near_far_densenet
import near_far_vit
from _real_images import TASKS

from study.grid import union

__all__ = ["RUNS", "TASKS"]

RUNS = union(near_far.RUNS, near_far_densenet.RUNS, near_far_vit.RUNS)
