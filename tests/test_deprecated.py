"""Names of 0.1 still work: each warns, and is the new object or returns the same result."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import study.store
from analysis import load, surfaces
from analysis.claims import Decision, Verdict, Verdicts
from study.run import Recipe, Run

RECIPE = Recipe(num_epochs=1)
RUN = Run(task="digits", size=10, model="resnet18", width=4, recipe=RECIPE, seed=0)
VERDICT = Verdict(
    claim="C1", statement="", primary="", arm="transfer", answer=Decision.HOLDS, compared="",
    run_ids=("a",),
)  # fmt: skip
VERDICTS = Verdicts([VERDICT])
FRAME = pd.DataFrame({"err": [0.5, 0.4, 0.3, 0.2], "run": [0, 0, 1, 1], "ep": [1, 2, 1, 2]})
COLUMNS = {"test_error": "err", "seed": "run", "epoch": "ep"}

# Aliases that are the new object: old name → new name, by module.
SAME_OBJECT = [
    (f"{module.__name__}.{old}", new)
    for module in (load, surfaces, study.store)
    for old, new in module.DEPRECATED.items()
]


@cache
def curves() -> load.Study:
    return load.from_dataframe(FRAME, COLUMNS, constants={"task": "MNIST"})


def over_epochs() -> Any:
    return surfaces.over_epochs(curves(), "test_error", arm="scratch")


# Aliases that convert: name, old call, new call.
SAME_RESULT: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "study.run.Run.plain": (lambda: RUN.plain, RUN.to_dict),
    "study.recipe.Recipe.plain": (lambda: RECIPE.plain, RECIPE.to_dict),
    "analysis.load.table": (
        lambda: load.table(FRAME, plain={"task": "MNIST"}, **COLUMNS).read(),
        lambda: curves().read(),
    ),
    "analysis.load.Study.tells": (
        lambda: curves().tells("frozen"),
        lambda: curves().has_coordinate("frozen"),
    ),
    "analysis.surfaces.epoch_surface": (
        lambda: surfaces.epoch_surface(curves(), value="test_error", arm="scratch"),
        lambda: over_epochs(),
    ),
    "analysis.surfaces.freezing_surface": (
        lambda: surfaces.freezing_surface(curves(), epoch=1, arm="scratch"),
        lambda: surfaces.at_epoch(curves(), "test_error", epoch=1, arm="scratch"),
    ),
    **{
        f"analysis.surfaces.{name}": (
            lambda name=name: getattr(surfaces, name)(over_epochs()),
            lambda name=name: surfaces.over_seeds(over_epochs())[name],
        )
        for name in ("mean", "standard_error", "count")
    },
    "analysis.claims.claims(study)[int]": (lambda: VERDICTS[0], lambda: VERDICTS["C1"]),
    "analysis.claims.Verdict.main": (lambda: VERDICT.main, lambda: VERDICT),
    "analysis.claims.Verdict.cells": (lambda: VERDICT.cells, lambda: VERDICT.run_ids),
}


@pytest.mark.parametrize(("old", "new"), SAME_OBJECT)
def test_alias_of_a_renamed_object_warns_and_is_that_object(old: str, new: str) -> None:
    def find(name: str) -> Any:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)

    with pytest.warns(DeprecationWarning) as caught:
        found = find(old)
    text = f"{old} is deprecated and will be removed in 0.3.0: use {new}"
    assert [str(one.message) for one in caught] == [text]
    assert found is find(new)


@pytest.mark.parametrize("name", SAME_RESULT)
def test_alias_that_converts_warns_and_returns_the_same(name: str) -> None:
    old, new = SAME_RESULT[name]
    with pytest.warns(DeprecationWarning) as caught:
        found = old()
    (warning,) = caught
    assert str(warning.message).startswith(f"{name} is deprecated")
    assert Path(warning.filename) == Path(__file__), "the warning names the caller's line"
    expected = new()
    values = [each.to_dict() if hasattr(each, "dims") else each for each in (found, expected)]
    assert repr(values[0]) == repr(values[1])


def test_unknown_name_of_a_package_with_aliases_raises_attribute_error() -> None:
    for module in (load, surfaces, study.store):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute"):
            _ = module.no_such_name  # type: ignore[attr-defined]
        with pytest.raises(ImportError):
            exec(f"from {module.__name__} import no_such_name", {})
