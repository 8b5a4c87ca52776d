"""load.from_dataframe: a table of curves becomes a study, and what it lacks raises an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import descent, load, surfaces
from analysis.claims import claims
from analysis.report import write_report
from analysis.surfaces import derived, similarity
from tests import synthetic

EPOCHS = np.arange(1, 41)


def curves(
    widths: tuple[int, ...] = (4, 8), seeds: tuple[int, ...] = (0, 1, 2), peak: float = 0.1
) -> pd.DataFrame:
    """Falling curves with a peak at epoch 12, in the columns of somebody else."""
    random = np.random.default_rng(1)
    parts = []
    for width in widths:
        for seed in seeds:
            bump = peak * np.exp(-0.5 * (np.log(EPOCHS / 12) / 0.4) ** 2)
            error = 0.2 + 0.3 / EPOCHS + bump + 0.002 * random.standard_normal(EPOCHS.size)
            train = np.maximum(0.0, 0.6 - EPOCHS / 25)
            parts.append(
                pd.DataFrame({"k": width, "run": seed, "ep": EPOCHS, "err": error, "tr": train})
            )
    return pd.concat(parts, ignore_index=True)


def as_polars(frame: pd.DataFrame) -> Any:
    return pytest.importorskip("polars").from_pandas(frame)


NAMES = {"test_error": "err", "train_error": "tr", "epoch": "ep", "seed": "run", "width": "k"}


@pytest.mark.parametrize("form", [lambda frame: frame, pa.Table.from_pandas, as_polars])
def test_from_dataframe_puts_every_row_into_its_cell(form: Any) -> None:
    frame = curves()
    shuffled = frame.sample(frac=1, random_state=0)
    study = load.from_dataframe(form(shuffled), NAMES, constants={"task": "MNIST"})
    surface = surfaces.over_epochs(study, arm="scratch", squeeze=True)
    assert surface.dims == ("width", "seed", "epoch") and surface["task"] == "MNIST"
    expected = frame.set_index(["k", "run", "ep"])["err"]
    assert surface.to_series().tolist() == expected.tolist()
    assert not study.missing and not study.wanted
    assert study.runs["last_epoch"].tolist() == [40.0] * 6
    assert study.runs["code_version"].isna().all() and study.runs["last_step"].isna().all()


@pytest.mark.slow
def test_a_table_goes_through_descent_claims_and_report(tmp_path: Any) -> None:
    frame = pd.concat([curves().assign(n=size) for size in (100, 400)])
    frame["err"] += np.where((frame["n"] == 400) & frame["ep"].between(9, 16), 0.1, 0.0)
    names = NAMES | {"size": "n", "label_noise": "noise"}
    study = load.from_dataframe(frame.assign(noise=0.2), names, constants={"task": "MNIST"})
    curve = surfaces.over_epochs(study, arm="scratch", width=4, size=400, squeeze=True)
    values = curve.transpose("seed", "epoch").values
    found = descent.judge_epochs(curve["epoch"].values, values)
    assert found.status in ("weak", "strong") and 9 <= found.peak <= 16
    first = derived.first_interpolation(study, arm="scratch")
    assert np.unique(first) == [13.0]  # 0.6 − 13 / 25 = 0.08
    c1 = claims(study, arm="scratch")["C1"]
    assert c1.effect is not None and c1.effect.low > 0 and len(c1.run_ids) == 12
    page = write_report(study, tmp_path, arm="scratch").read_text(encoding="utf-8")
    assert "how they were produced is not known" in page and "MNIST, width 4" in page
    shown = page.split('id="pictures"')[1].split('id="provenance"')[0]
    assert "not known" not in shown


def test_what_the_table_does_not_have_is_refused_by_name(tmp_path: Any) -> None:
    names = {key: value for key, value in NAMES.items() if key != "train_error"}
    study = load.from_dataframe(curves(), names)
    for ask in (
        lambda: derived.first_interpolation(study, arm=None),
        lambda: claims(study, arm="scratch"),
        lambda: study.read(["train_error"]),
        lambda: load.add_column(study, "twice", ["train_error"], lambda error: 2 * error),
    ):
        with pytest.raises(ValueError, match="train_error"):
            ask()
    with pytest.raises(ValueError, match="interpolation is not known"):
        derived.effective_capacity(study, arm=None)
    with pytest.raises(ValueError, match=r"'step'.*does not give it"):
        surfaces.over_epochs(study, arm=None, x="step")
    with pytest.raises(ValueError, match="no similarity"):
        similarity.read(study)
    assert study.measured == ("epoch", "test_error")
    assert study.read().column_names == ["run_id", "epoch", "test_error"]
    page = write_report(study, tmp_path).read_text(encoding="utf-8")
    assert "what interpolates is not known" in page and "The claims were not judged" in page


def test_without_epochs_each_seed_has_one_line(tmp_path: Any) -> None:
    last = curves().query("ep == 40")
    names = {key: value for key, value in NAMES.items() if key != "epoch"}
    study = load.from_dataframe(last, names)
    final = surfaces.at_epoch(study, arm=None, squeeze=True)
    assert final.sel(width=8).values.tolist() == last.query("k == 8")["err"].tolist()
    for ask in (
        lambda: surfaces.over_epochs(study, arm=None),
        lambda: surfaces.at_epoch(study, arm=None, epoch=40),
        lambda: claims(study),
    ):
        with pytest.raises(ValueError, match=r"'epoch'.*does not give it"):
            ask()
    assert write_report(study, tmp_path).exists()
    told = load.from_dataframe(last, names, constants={"epoch": 40})
    assert (
        surfaces.at_epoch(told, arm=None, epoch=40).shape
        == final.expand_dims([name for name in surfaces.DIMENSIONS if name not in final.dims])
        .transpose(*surfaces.DIMENSIONS)
        .shape
    )
    with pytest.raises(ValueError, match=r"lines 0 and 1 .from 0. are both width 4, seed 0"):
        load.from_dataframe(curves(), names)


def test_epochs_are_counted_as_told() -> None:
    def epochs(frame: pd.DataFrame, first_epoch: int | None) -> list[float]:
        study = load.from_dataframe(frame, NAMES, first_epoch=first_epoch)
        return surfaces.over_epochs(study, arm=None)["epoch"].values.tolist()

    ones, zeros = curves(), curves().assign(ep=lambda frame: frame["ep"] - 1)
    assert epochs(ones, None) == epochs(ones, 1) == epochs(zeros, 0) == list(range(1, 41))
    assert epochs(zeros, 1) == list(range(40))  # its 0 is before training
    with pytest.raises(ValueError, match="there is an epoch 0: choose 1"):
        epochs(zeros, None)
    with pytest.raises(ValueError, match="first_epoch=2: choose 0 or 1"):
        epochs(ones, 2)


@pytest.mark.parametrize(
    ("source", "frozen", "arm"),
    [
        ("none", 0, "scratch"),
        ("none", 3, "random frozen"),
        ("pretrained", 3, "pretrained"),
        ("birds", 3, "same task"),
        ("ImageNet", 0, "transfer"),
    ],
)
def test_the_arm_follows_from_the_source(source: str, frozen: int, arm: str) -> None:
    frame = curves(widths=(4,)).assign(origin=source, cut=frozen)
    names = NAMES | {"source_task": "origin", "frozen": "cut"}
    study = load.from_dataframe(frame, names, constants={"task": "birds"})
    assert set(study.cells["arm"]) == {arm}
    told = load.from_dataframe(frame, NAMES | {"frozen": "cut"}, constants={"arm": "reinitialised"})
    assert set(told.cells["arm"]) == {"reinitialised"}


def spoilt(**columns: Any) -> pd.DataFrame:
    frame = curves()
    for name, values in columns.items():
        frame[name] = values(frame[name]) if callable(values) else values
    return frame


def hole(values: pd.Series) -> pd.Series:
    return values.where(values.index != 5)


@pytest.mark.parametrize(
    ("frame", "columns", "constants", "message"),
    [
        (
            curves(),
            {"test_error": "error"},
            {},
            r"test_error'\]='error': choose one of .*'k', 'run'",
        ),
        (
            curves(),
            {"error": "err"},
            {},
            r"columns\['error'\]: no such name, choose from epoch, step",
        ),
        (curves(), {"start": "k"}, {}, r"columns\['start'\]: no such name"),
        (curves(), {}, {"test_error": 1}, r"constants\['test_error'\]: no such name"),
        (curves(), {}, {"width": 1}, "width is the column 'k' already"),
        (curves(), {}, {"label_noise": 20}, "20 in line 0 .* a fraction in"),
        (curves(), {}, {"arm": "sideways"}, "'sideways' .* choose one of transfer"),
        (spoilt(err=lambda e: 100 * e), {}, {}, r"test_error'\]='err': .* divide per cent by 100"),
        (spoilt(tr=lambda e: e - 1), {}, {}, r"train_error'\]='tr': .* errors are fractions"),
        (spoilt(err=hole), {}, {}, r"test_error'\]='err': line 5 has no value"),
        (spoilt(ep=hole), {}, {}, r"epoch'\]='ep': line 5 has no value"),
        (spoilt(err="high"), {}, {}, "'high' in line 0 .from 0.: a finite number"),
        (spoilt(run="first"), {}, {}, r"seed'\]='run': 'first' in line 0"),
        (spoilt(run=1.5), {}, {}, r"seed'\]='run': 1.5 in line 0 .from 0.: a whole number"),
        (spoilt(k=-1.5), {}, {}, r"width'\]='k': -1.5 in line 0 .from 0.: a number is needed, 0"),
        (spoilt(ep=-1), {}, {}, "epochs are 0 or more"),
        (curves().iloc[:0], {}, {}, "it has no line"),
        ({"err": [0.1]}, {}, {}, "frame: dict is not a table. Pass a pandas, Polars or Arrow"),
        (pd.concat([curves(), curves().iloc[3:4]]), {}, {}, "lines 3 and 240 .*seed 0, epoch 4"),
        (
            curves().drop(index=[77]),
            {},
            {},
            "width 4, seed 1 was evaluated at other epochs than seed 0",
        ),
        (
            spoilt(k=lambda k: k).assign(cut=3),
            {"frozen": "cut"},
            {},
            "say from which task they come",
        ),
        (
            curves().assign(p=np.arange(240)),
            {"parameters_trained": "p"},
            {},
            "parameters_trained: width 4, seed 0 has several values",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_field_value_and_choices(
    frame: Any, columns: dict[str, str], constants: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load.from_dataframe(frame, NAMES | columns, constants=constants)


@pytest.mark.parametrize("x", ["width", "parameters_trained"])
@pytest.mark.parametrize("scale", [1, 1_000])  # widths in thousands are floats
def test_judge_along_finds_the_peak_of_a_model_wise_curve(x: str, scale: int) -> None:
    widths = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    random = np.random.default_rng(0)
    lines = [
        {
            "k": width if x == "parameters_trained" else width / scale,
            "run": seed,
            "err": 0.5 / width**0.3 + 0.3 * (width == 16) + 0.002 * random.standard_normal(),
            "tr": max(0.0, 0.6 - 0.6 * width / 16),
        }
        for width in widths
        for seed in range(4)
    ]
    names = {"test_error": "err", "train_error": "tr", "seed": "run", x: "k"}
    study = load.from_dataframe(pd.DataFrame(lines), names)
    found = surfaces.judge_along(study, x)
    expected = 16 if x == "parameters_trained" else 16 / scale
    assert (found.status, found.peak, found.axis) == ("strong", expected, x)
    assert surfaces.at_epoch(study, squeeze=True).sizes == {"width": 8, "seed": 4}
    with pytest.raises(ValueError, match="x='size': choose one of width"):
        surfaces.judge_along(study, "size")
    with pytest.raises(ValueError, match=r"table cannot answer the claims: .*judge_along"):
        claims(study)


def test_claims_of_a_table_name_what_it_cannot_be_asked() -> None:
    study = load.from_dataframe(curves(), NAMES, constants={"task": "MNIST"})
    first = str(claims(study)).splitlines()[0]
    said = "one value of size, source_size, frozen, source_task."
    assert first == f"This table cannot answer C1, C2, C3, C4, C5a, C5b: it has {said}"
    two = pd.concat([curves().assign(a="scratch"), curves().assign(a="reinitialised")])
    both = load.from_dataframe(two, NAMES | {"arm": "a"})
    with pytest.raises(ValueError, match="no transfer, choose one of reinitialised, scratch"):
        claims(both)
    assert surfaces.over_epochs(both, arm="scratch").size == surfaces.over_epochs(study).size


def test_the_test_error_must_be_named() -> None:
    with pytest.raises(ValueError, match="columns: 'test_error' is missing"):
        load.from_dataframe(curves(), {"epoch": "ep"})


def test_cells_may_have_other_epochs_and_seeds_than_their_neighbours() -> None:
    frame = curves().query("(k == 4 and ep <= 20) or (k == 8 and run < 2)")
    study = load.from_dataframe(frame, NAMES)
    with pytest.raises(ValueError, match="different epochs"):
        surfaces.over_epochs(study, arm=None)
    surface = surfaces.over_epochs(study, arm=None, evaluations="union", squeeze=True)
    assert surface.sel(width=4, epoch=21).isnull().all()
    assert surface.sel(width=8, seed=2).isnull().all()
    assert int(surface.notnull().sum()) == len(frame)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(2**53, 2**63 - 1))
def test_seeds_keep_all_their_digits(seed: int) -> None:
    study = load.from_dataframe(curves(seeds=(seed,)), NAMES)
    assert set(study.cells["seed"]) == {seed}


@pytest.mark.slow
def test_a_study_read_as_a_table_has_the_same_verdicts(tmp_path: Any) -> None:
    """What a store gives to the claims, a table of the same rows gives as well."""
    wanted = synthetic.runs(
        num_epochs=60, sizes=(250, 4_000), label_noises=(0.2,), frozen=(0, 4, 9), seeds=(0, 1, 2)
    )
    synthetic.write(tmp_path, wanted)
    stored = load.open_study(tmp_path)
    cells = stored.cells[stored.cells["arm"] == "transfer"]
    rows = stored.read(["epoch", "test_error", "train_error"], arm="transfer").to_pandas()
    names = ("task", "size", "label_noise", "model", "width", "frozen", "seed", "recipe")
    names = (*names, "source_task", "source_size", "parameters_trained")
    frame = rows.merge(cells[list(names)], left_on="run_id", right_index=True)
    measured = ("epoch", "test_error", "train_error")
    study = load.from_dataframe(frame, {name: name for name in (*names, *measured)}, first_epoch=1)
    ours, theirs = (
        claims(one, more_related="near", less_related="far", arm="transfer").values()
        for one in (study, stored)
    )
    for table, store in zip(ours, theirs, strict=True):
        assert table.answer == store.answer and len(table.run_ids) == len(store.run_ids)
        for one, other in zip(table.conditions, store.conditions, strict=True):
            assert one.interval == other.interval
