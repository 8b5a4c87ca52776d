"""Grids: order, uniqueness, starts, and errors."""

from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest

from study.grid import EVERY_CUT, EVERY_PIECE, LOG_SPACED, grid, union, with_starts
from study.run import Recipe, Run

RECIPE = Recipe(num_epochs=5)
AXES: dict[str, Any] = {
    "source_task": "digits-low",
    "source_size": (100, 400),
    "target_task": "digits-high",
    "target_size": (50, 200),
    "model": "resnet18",
    "width": 4,
    "frozen": (0, 3, 9),
    "label_noise": (0, 0.2),
    "seed": (0, 1),
    "recipe": RECIPE,
}


WITHOUT_SOURCE = {k: v for k, v in AXES.items() if k not in ("source_task", "source_size")}


def cells(runs: list[Run]) -> list[Run]:
    return [run for run in runs if run.start is not None]


def test_grid_has_all_combinations_and_starts_first() -> None:
    runs = grid(**AXES)
    assert len(cells(runs)) == 2 * 2 * 3 * 2 * 2
    assert len(runs) - len(cells(runs)) == 2 * 2  # source sizes × seeds
    assert len(set(runs)) == len({run.id for run in runs}) == len(runs)
    place = {run: i for i, run in enumerate(runs)}
    assert all(place[run.source] < place[run] for run in runs if run.source)
    assert all(run.source.seed == run.seed for run in cells(runs) if run.source)


@pytest.mark.parametrize(
    ("axis", "values"),
    [("target_size", (50, 200, 300)), ("seed", (0, 1, 2)), ("frozen", (0, 3, 6, 9))],
)
def test_grid_longer_axis_keeps_the_other_runs(axis: str, values: tuple[int, ...]) -> None:
    small, large = grid(**AXES), grid(**AXES | {axis: values})
    assert set(small) < set(large)
    assert union(large, small) == large


@pytest.mark.parametrize("form", ["numpy", "pandas", "polars", "generator", "torch"])
def test_grid_numpy_and_frame_values_have_the_ids_of_plain_ones(form: str) -> None:
    def given(values: list[Any]) -> Any:
        if form == "generator":
            return (value for value in values)
        package = pytest.importorskip(form)
        make = {"numpy": "array", "pandas": "Series", "polars": "Series", "torch": "tensor"}[form]
        return getattr(package, make)(values)

    # float32, which torch makes of them, is exact for these values.
    axes = AXES | {"label_noise": [0.0, 0.5], "learning_rate": [0.25, 0.5]}
    several = ("source_size", "target_size", "frozen", "label_noise", "seed", "learning_rate")
    runs = grid(**axes | {name: given(list(axes[name])) for name in several})
    assert [run.id for run in runs] == [run.id for run in grid(**axes)]
    assert {type(run.size) for run in runs} == {type(run.seed) for run in runs} == {int}
    one = {"seed": np.int32(1), "width": np.uint8(4), "label_noise": np.float32(0.1)}
    plain = {"seed": 1, "width": 4, "label_noise": 0.1}
    assert grid(**AXES | one) == grid(**AXES | plain)
    assert Recipe(learning_rate=np.float64(1e-3), num_epochs=np.int64(5)).id == (
        Recipe(learning_rate=1e-3, num_epochs=5).id
    )


def test_grid_source_seed_shares_sources() -> None:
    runs = grid(**AXES | {"source_seed": 7})
    assert {run.seed for run in runs if run.start is None} == {7}
    assert len(runs) - len(cells(runs)) == 2


@pytest.mark.parametrize("source", ["pretrained", "digits-low"])
def test_grid_without_a_source_needs_no_size(source: str) -> None:
    size = None if source == "pretrained" else 100
    runs = grid(**WITHOUT_SOURCE, source_task=(None, source), source_size=size)
    assert {run.source.task if run.source else run.start for run in runs} == {None, source}


def test_grid_sources_have_no_cut() -> None:
    cut_recipe = replace(RECIPE, above_cut="reinitialised", frozen_batchnorm="training")
    runs = grid(**AXES | {"recipe": (RECIPE, cut_recipe)})
    sources = [run for run in runs if run.start is None]
    assert {run.recipe for run in sources} == {RECIPE}
    assert len(sources) == 4  # both arms share their sources


def test_grid_recipe_field_is_an_axis() -> None:
    recipes = tuple(replace(RECIPE, learning_rate=rate) for rate in (1e-4, 1e-3))
    assert set(grid(**AXES, learning_rate=(1e-4, 1e-3))) == set(grid(**AXES | {"recipe": recipes}))
    alone = grid(**AXES, learning_rate=1e-3, source_recipe=RECIPE)
    assert {run.recipe for run in alone if run.start is None} == {RECIPE}


def test_grid_random_frozen_layers_are_calibrated_by_images() -> None:
    runs = grid(
        **WITHOUT_SOURCE | {"frozen": (0, 3)}, source_task=(None, "digits-low"), source_size=100
    )
    rules = {(run.start is None, run.frozen > 0): run.recipe.calibration for run in runs}
    assert rules == {
        (True, False): "batches", (True, True): "images",
        (False, False): "batches", (False, True): "batches",
    }  # fmt: skip
    assert len({run.recipe.cell_id for run in runs}) == 1


def test_grid_default_width_is_the_standard_one() -> None:
    assert grid(**AXES | {"width": None}) == grid(**AXES | {"width": 64})


def places(**axes: Any) -> list[tuple[int, int, int]]:
    runs = cells(
        grid(**AXES | {"target_size": 50, "source_size": 100, "label_noise": 0, "seed": 0} | axes)
    )
    return [(run.frozen, run.trained_channels, run.frozen_pieces) for run in runs]


def test_grid_every_piece_has_each_cut_once() -> None:
    resnet = places(frozen=EVERY_CUT, frozen_pieces=EVERY_PIECE)
    # The last block's second piece is all its channels.
    assert resnet == [
        (0, 0, 0), *((cut, 0, some) for cut in range(1, 8) for some in (0, 1)), (8, 0, 0), (9, 0, 0),
    ]  # fmt: skip
    densenet = places(model="densenet121", frozen=(7, 10, 11), frozen_pieces=EVERY_PIECE)
    assert densenet == [(7, 0, 0), *((10, 0, some) for some in range(6)), (11, 0, 0)]
    vit = places(model="vit_tiny", width=12, frozen=EVERY_CUT, frozen_pieces=EVERY_PIECE)
    assert vit == [(0, 0, 0), *((cut, 0, some) for cut in range(1, 14) for some in (0, 1))]


def test_grid_pieces_apply_to_layers_that_have_them() -> None:
    def some(**axes: Any) -> list[tuple[int, int, int]]:
        return places(**{"model": "densenet121", "frozen": EVERY_CUT} | axes)

    assert some() == [(cut, 0, 0) for cut in range(12)]
    inside = [(8, 0, 4), (9, 0, 4), (10, 0, 4)]
    assert some(frozen_pieces=4) == inside
    assert sorted(some(frozen_pieces=(0, 4))) == sorted(some() + inside)
    assert some(frozen_pieces=5) == [(9, 0, 5), (10, 0, 5)]
    assert some(frozen=(9, 10), frozen_pieces=(5, 1)) == [
        (9, 0, 5), (9, 0, 1), (10, 0, 5), (10, 0, 1),
    ]  # fmt: skip


def test_grid_channels_and_pieces_are_combined() -> None:
    def some(channels: Any, pieces: Any) -> list[tuple[int, int, int]]:
        return places(
            model="vit_tiny",
            width=12,
            frozen=(12, 13),
            trained_channels=channels,
            frozen_pieces=pieces,
        )

    log_spaced = [(13, channels, 0) for channels in (0, 1, 2, 4, 8, 16, 32, 48)]
    assert some(LOG_SPACED, EVERY_PIECE) == [
        (12, 0, 0), (12, 0, 1), *log_spaced, (13, 0, 1),
    ]  # fmt: skip
    assert some((0, 3), 1) == [(12, 0, 1), (13, 3, 0), (13, 0, 1)]
    assert some(3, 1) == [(12, 0, 1), (13, 3, 0), (13, 0, 1)]


def test_with_starts_adds_the_whole_chain() -> None:
    a = Run(task="a", size=10, model="resnet18", width=4, recipe=RECIPE, seed=0)
    b = replace(a, task="b", start=a)
    c = replace(a, task="c", start=b, frozen=2)
    assert with_starts([c, b]) == [a, b, c]


LAYERS_ONLY = "timm/resnet18 is cut between layers only"
TIMM = {"model": "timm/resnet18", "width": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, r"grid\(depth=…\): not an argument and not a field; fields are above_cut"),
        ({"source_tasks": "a"}, r"grid\(source_tasks=…\): .* did you mean 'source_task'\?"),
        ({"learnng_rate": 1e-3}, "did you mean 'learning_rate'"),
        ({"momentum": (0.0, 0.9)}, "only for optimizer='sgd'"),
        ({"frozen": (0, 10)}, "frozen=10: resnet18 has 10 layers; choose 0 to 9"),
        ({"frozen": (1, 1)}, "1 is given twice"),
        ({"label_noise": (0, 0.0)}, "given twice"),
        ({"seed": ()}, "needs at least one value"),
        ({"seed": count()}, "it has more than 1,000,000 values"),
        ({"seed": np.zeros((2, 2), int)}, r"seed: array\(\[0, 0\]\) \(ndarray\) is not one value"),
        ({"seed": object()}, "seed=<object .*: give a value, or a sequence of values"),
        ({"target_size": np.array([True, False])}, "Run.size=True: .*a bool is no number"),
        ({"width": (None, 64)}, r"width=\(None, 64\): the same width twice, as in .*width 64"),
        ({"source_size": None}, "source_size=None"),
        ({"source_task": None}, "names no task"),
        ({"target_size": 1}, "Run.size=1"),
        ({"frozen_pieces": 2}, "frozen_pieces=2: no layer of resnet18 has more than 1"),
        ({"frozen_pieces": (0, 2), "frozen": EVERY_CUT}, r"=\[0, 2\]: no layer .*choose 0 to 1"),
        ({"frozen_pieces": 1, "frozen": 8}, "the training of frozen=9 with trained_channels=32"),
        (
            {"frozen_pieces": EVERY_PIECE, "model": "resnet50"},
            "resnet50 is cut between layers only",
        ),
        ({"frozen_pieces": EVERY_PIECE, **TIMM}, f"'every piece': {LAYERS_ONLY}"),
        ({"trained_channels": LOG_SPACED, **TIMM}, LAYERS_ONLY),
    ],
)
def test_grid_wrong_axis_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(**AXES | change)
