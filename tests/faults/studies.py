"""Small search spaces: a Run takes some tenths of a second to a few seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from study.run import Run

_TINY: Final = '''"""A tiny study: a source, and cells whose predictions are kept."""
from study.grid import grid
from study.run import Recipe, Run

RUNS = grid(
    source_task="digits-low",
    source_size=100,
    target_task="digits-high",
    target_size=[60, 100],
    label_noise=0.2,
    model="resnet18",
    width=2,
    frozen=[0, 9],
    seed=0,
    recipe=Recipe(num_epochs=6, batch_size=16, learning_rate=1e-3),
    source_recipe=Recipe(num_epochs={source_epochs}, batch_size=16, learning_rate=1e-3),
)
KEEP_PREDICTIONS = True
'''

# BIG needs far more memory than the others; the loss of WILD is not finite at once.
_BUGS: Final = """
BIG = Run(
    task="digits-low",
    size=8,
    model="resnet18",
    width=256,
    seed=0,
    recipe=Recipe(num_steps=1, batch_size=8),
)
WILD = Run(
    task="digits-low",
    size=16,
    model="resnet18",
    width=2,
    seed=0,
    recipe=Recipe(num_epochs=2, batch_size=8, optimizer="sgd", learning_rate=1e30),
)
RUNS += [BIG, WILD]
"""

_FROM_SCRATCH: Final = '''"""Short Runs without a source."""
from study.run import Recipe, Run

RUNS = [
    Run(
        task="digits-low",
        size=60,
        model="resnet18",
        width=2,
        seed=seed,
        recipe=Recipe(num_epochs={epochs}, batch_size=16, learning_rate=1e-3),
    )
    for seed in range({count})
]
'''


def _tiny(source_epochs: int = 12, **other: str) -> str:
    """Return the tiny study with other values of fields."""
    text = _TINY.format(source_epochs=source_epochs)
    for name, value in other.items():
        text = re.sub(rf"(?m)^    {name}=.*,$", f"    {name}={value},", text)
    return text


SEEDS: Final = "(0, 1, 3)"  # three of a block of four, which are trained as one network
_TOGETHER: Final = "batch_size=16, learning_rate=1e-3, seeds_together=4"
_STACKED: Final = _tiny(
    seed=SEEDS,
    recipe=f"Recipe(num_epochs=6, {_TOGETHER})",
    source_recipe=f"Recipe(num_epochs=12, {_TOGETHER})",
)
_SGD: Final = "Recipe(num_epochs=6, batch_size=16, optimizer='sgd', learning_rate={rate}{more})"

TEXTS: Final[Mapping[str, str]] = {
    "tiny": _tiny(),
    "slow_source": _tiny(60),
    "slower_source": _tiny(300),
    "with_bugs": _tiny() + _BUGS,
    "one": _FROM_SCRATCH.format(epochs=8, count=1),
    "ten": _FROM_SCRATCH.format(epochs=1, count=10),
    "many": _FROM_SCRATCH.format(epochs=1, count=20),
    "stacked": _STACKED,
    # At this rate, some seeds of a block diverge, one after its first row, and others do not.
    "stacked_wild": _tiny(
        seed=SEEDS,
        recipe=_SGD.format(rate="30.0", more=", seeds_together=4"),
        source_recipe=f"Recipe(num_epochs=12, {_TOGETHER})",
    ),
    # If the source diverged, its cells would count as failed.
    "all_diverged": _tiny(2, recipe=_SGD.format(rate="1e30", more="")),
}


def runs_of(text: str) -> dict[str, Run]:
    """Return the Runs of a search space by id."""
    values: dict[str, Any] = {}
    exec(text, values)
    return {run.id: run for run in values["RUNS"]}
