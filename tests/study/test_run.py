"""A Run's canonical form and id, which find its finished work."""

import json
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study import run as run_module
from study.recipe import CHOICES
from study.run import Recipe, Run, describe, from_json, to_json

RECIPE = Recipe(num_epochs=30)
SOURCE = Run(task="digits-low", size=400, model="resnet18", width=8, recipe=RECIPE, seed=3)
CELL = replace(
    SOURCE, task="digits-high", part="b", size=200, label_noise=0.2, start=SOURCE, frozen=4
)


def test_run_ids_are_pinned() -> None:
    # A changed id orphans every finished Run of every store: change the code back, not the literal.
    assert SOURCE.id == "4ee81ff605e6"
    assert CELL.id == "b587f4e4a260"
    assert replace(CELL, start="pretrained").id == "4552922dbc21"
    assert replace(CELL, trained_channels=4).id == "e28d530187b8"
    assert replace(CELL, frozen_pieces=1).id == "51c37cb5d05b"
    assert RECIPE.id == "2801d1eb"


def test_canonical_json_is_pinned() -> None:
    assert to_json(SOURCE) == (
        '{"frozen":0,"label_noise":0,"model":"resnet18","part":"all","recipe":{"above_cut":"start",'
        '"augmentation":"none","batch_size":128,"evaluation":"every_epoch",'
        '"frozen_batchnorm":"evaluation","inverse_sqrt_steps":512,"learning_rate":0.0001,"momentum":0,'
        '"num_epochs":30,"num_evaluations":0,"num_steps":null,"optimizer":"adam",'
        '"precision":"float32","schedule":"constant","weight_decay":0},"seed":3,"size":400,'
        '"start":null,"task":"digits-low","width":8}'
    )


@given(
    size=st.integers(2, 10**6),
    seed=st.integers(0, 2**63 - 1),
    noise=st.floats(0, 1, exclude_max=True),
    rate=st.floats(1e-8, 10),
    frozen=st.integers(0, 60),
    width=st.none() | st.integers(1, 512),
)
def test_from_json_returns_the_run(
    size: int, seed: int, noise: float, rate: float, frozen: int, width: int | None
) -> None:
    recipe = Recipe(num_steps=10, learning_rate=rate)
    source = Run(task="a", size=size, model="m", width=width, recipe=recipe, seed=seed)
    run = replace(source, task="b", label_noise=noise, start=source, frozen=frozen)
    again = from_json(to_json(run))
    assert again == run
    assert again.id == run.id
    assert to_json(again) == to_json(run)


def test_canonical_json_writes_a_number_in_one_way() -> None:
    runs = {replace(CELL, label_noise=noise) for noise in (0, 0.0, -0.0)}
    assert len(runs) == len({run.id for run in runs}) == 1


def test_run_id_changes_with_every_field() -> None:
    changes = {
        "task": "digits",
        "part": "a",
        "size": 201,
        "label_noise": 0.25,
        "start": None,
        "frozen": 5,
        "trained_channels": 2,
        "frozen_pieces": 1,
        "head_inputs": 1,
        "recipe": Recipe(num_epochs=31),
        "seed": 4,
    }
    runs = {replace(CELL, **{name: value}) for name, value in changes.items()}
    runs |= {replace(SOURCE, width=9), replace(SOURCE, model="resnet34"), SOURCE, CELL}
    assert len({run.id for run in runs}) == len(fields(Run)) + 2


def test_recipe_id_changes_with_every_field() -> None:
    changes = {
        "optimizer": "adamw",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "schedule": "cosine",
        "inverse_sqrt_steps": 100,
        "batch_size": 64,
        "num_epochs": 8,
        "num_steps": 9,
        "augmentation": "crop_flip",
        "above_cut": "reinitialised",
        "frozen_batchnorm": "training",
        "precision": "bfloat16",
        "evaluation": "log_spaced",
        "num_evaluations": 6,
        "calibration": "images",
        "seeds_together": 10,
        "loss": "squared",
        "l2_start": 0.1,
    }
    assert changes.keys() == {field.name for field in fields(Recipe)}
    needed = {"num_steps": {"num_epochs": None}, "evaluation": {"num_evaluations": 5}}
    needed["num_evaluations"] = {"evaluation": "log_spaced"}
    sgd = Recipe(num_epochs=9, optimizer="sgd", schedule="inverse_sqrt")
    recipes = [replace(sgd, **{n: value, **needed.get(n, {})}) for n, value in changes.items()]
    assert len({recipe.id for recipe in [sgd, *recipes]}) == 1 + len(changes)


def test_run_id_does_not_change_with_later_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if `part` had come later with "all" as its original value.
    monkeypatch.setitem(run_module.ADDED_LATER, "part", "all")
    old, new = replace(SOURCE, part="all"), replace(SOURCE, part="a")
    assert '"part"' not in to_json(old)
    assert '"part":"a"' in to_json(new)
    assert from_json(to_json(old)) == old
    assert from_json(to_json(new)) == new


REINITIALISED = replace(RECIPE, above_cut="reinitialised")
CALIBRATED = replace(RECIPE, calibration="images")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": ""}, "Run.task=''"),
        ({"size": 1}, "Run.size=1: must be a whole number, 2 or more"),
        ({"size": 10.0}, "Run.size=10.0"),
        ({"size": True}, "Run.size=True"),
        ({"size": np.int64(1)}, "Run.size=1: must be a whole number, 2 or more"),
        ({"size": np.bool_(True)}, "Run.size=True: .*a bool is no number"),
        ({"size": "40"}, "Run.size='40': .*remove the quotes"),
        ({"frozen_pieces": -1}, "Run.frozen_pieces=-1"),
        ({"frozen_pieces": 1, "trained_channels": 2}, "=2: a network is cut in one place"),
        ({"seed": -1}, "Run.seed=-1"),
        ({"seed": 2**63}, f"Run.seed={2**63}: must be a whole number, 0 to {2**63 - 1}"),
        ({"frozen": -1}, "Run.frozen=-1"),
        ({"frozen": "all"}, "Run.frozen='all'"),
        ({"label_noise": 1.0}, "Run.label_noise=1.0: must be a finite number, at least 0, below 1"),
        ({"label_noise": float("nan")}, "Run.label_noise=nan"),
        ({"label_noise": np.float64(1.5)}, "Run.label_noise=1.5: must be a finite number"),
        ({"width": 0}, "Run.width=0"),
        ({"part": "c"}, "Run.part='c': choose one of all, a, b"),
        ({"start": "imagenet"}, "Run.start='imagenet': choose None, 'pretrained', or another Run"),
        ({"model": "resnet34"}, "Run.model='resnet34', but its start has model='resnet18'"),
        ({"width": 9}, "Run.width=9, but its start has width=8"),
        ({"recipe": {"num_epochs": 3}}, "not a Recipe"),
        ({"recipe": REINITIALISED, "start": None}, "needs a start"),
        ({"recipe": CALIBRATED}, "only for layers that are frozen at random"),
        ({"recipe": CALIBRATED, "start": None, "frozen": 0}, "only for layers that are frozen at"),
    ],
)
def test_run_wrong_field_names_value_and_choices(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CELL, **change)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of num_epochs and num_steps"),
        ({"num_epochs": 1, "num_steps": 1}, "exactly one of num_epochs and num_steps"),
        ({"num_epochs": 0}, "Recipe.num_epochs=0"),
        ({"num_epochs": 1, "batch_size": 1}, "Recipe.batch_size=1"),
        ({"num_epochs": 1, "learning_rate": 0.0}, "rate=0.0: must be a finite number, above 0"),
        ({"num_epochs": 1, "momentum": 0.9}, "only for optimizer='sgd'"),
        ({"num_epochs": 1, "inverse_sqrt_steps": 9}, "only for schedule='inverse_sqrt'"),
        ({"num_epochs": 1, "evaluation": "log_spaced"}, "needs 2 or more"),
        ({"num_epochs": 1, "num_evaluations": 5}, "only for evaluation='log_spaced'"),
        *(({"num_epochs": 1, name: "x"}, f"{name}='x'") for name in CHOICES),
    ],
)
def test_recipe_wrong_field_is_an_error(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)  # type: ignore[arg-type]


def test_recipe_of_cells_has_no_calibration() -> None:
    assert replace(SOURCE, recipe=CALIBRATED, frozen=1).recipe == CALIBRATED
    assert CALIBRATED.cell_id == RECIPE.id
    assert CALIBRATED.base == RECIPE


def test_from_json_other_fields_are_an_error() -> None:
    plain = json.loads(to_json(CELL))
    for wrong in ({**plain, "depth": 3}, {k: v for k, v in plain.items() if k != "seed"}, [], 3):
        with pytest.raises(ValueError, match="Run"):
            from_json(json.dumps(wrong))
    del plain["recipe"]["batch_size"]
    with pytest.raises(ValueError, match=r"Recipe.*batch_size"):
        from_json(json.dumps(plain))


def test_run_generation_counts_its_starts() -> None:
    again = replace(CELL, start=CELL)
    tuned = replace(SOURCE, start="pretrained")
    runs = (SOURCE, CELL, again, tuned, replace(CELL, start=tuned))
    assert [run.generation for run in runs] == [0, 1, 2, 1, 2]


def test_run_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        CELL.size = 3  # type: ignore[misc]


def test_describe_names_source_and_target() -> None:
    assert describe(CELL) == (
        "digits-low n=400 → digits-high half b n=200 noise 0.2, resnet18 width 8, frozen 4, seed 3"
    )
