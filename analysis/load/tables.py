"""Turn a pandas, Polars or Arrow table of learning curves into a `Study`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.load.arms import ARMS, FROM_PRETRAINED, RANDOM_FROZEN, SAME_TASK, SCRATCH, TRANSFER
from analysis.load.cells import ARM, COLUMNS, PROVENANCE, grouped, with_cuts
from analysis.load.rows import SIZES, Evaluations, TableRows, name_evaluations
from analysis.load.study import Study
from study.deprecation import warn_deprecated
from study.fields import Plain
from study.run import COORDINATES, PRETRAINED
from study.store import schema
from study.store.schema import DONE

NOT_KNOWN: Final = "not known"
NONE: Final = "none"  # value of source_task for Runs without a source

_KINDS: Final = {c.name: c.kind for c in COORDINATES if c.name != "start"}
_SOURCE: Final = tuple(name for name in _KINDS if name.startswith("source_"))
_MEASURED: Final = tuple(column.name for column in schema.MEASUREMENTS)
_ERRORS: Final = tuple(name for name in _MEASURED if "_error" in name)
_TIMES: Final = ("epoch", "step")
_NAMES: Final = (*_MEASURED, *_KINDS, ARM, *SIZES)
_CONSTANTS: Final = (*_KINDS, ARM, *SIZES, "epoch")


def from_dataframe(
    frame: Any,
    columns: Mapping[str, str],
    *,
    constants: Mapping[str, Any] | None = None,
    first_epoch: int | None = None,
    name: str = "table",
) -> Study:
    """Turn a table of learning curves, with one row per cell, seed and epoch, into a study.

    `load.from_dataframe(frame, {"test_error": "err", "seed": "run"}, constants={"task": "MNIST"})`

    Errors are fractions. Without `epoch` and `step`, each seed has one row and its epoch is unknown.
    Without `seed`, all rows have one seed. Without `train_error`, functions that need interpolation raise
    an error. Other missing measurements are absent; other missing coordinates are constant. If layers are
    frozen, `source_task` is required ("none": frozen at random). If each seed or epoch has a separate
    column, reshape the table first (`frame.melt`).

    Args:
        frame: A pandas, Polars or Arrow table, or another object with `__arrow_c_stream__`.
        columns: Our name → the table's column. `test_error` is required. Other names: the rest of
            `schema.MEASUREMENTS`, `study.run.COORDINATES` except `start`, `arm` (`arms.ARMS`), and the
            fields of `schema.Sizes`. For any other axis, choose the most similar coordinate; counts may be
            floats. `width` defaults to `parameters_trained`.
        constants: Our name → one value for all rows, instead of a column; "epoch" is allowed too.
        first_epoch: The table's number for the end of the first epoch: 1 (epoch 0 is before training) or
            0 (no row is from before training). Required if the table has an epoch 0.
        name: The name of the study.

    Raises:
        ValueError: An unknown name (the message lists the choices), a missing or invalid value, two rows
            for one seed and epoch, or a cell whose seeds were evaluated at different epochs.
    """
    own = _own(_as_pandas(frame), columns, dict(constants or {}))
    if "epoch" in own:
        own["epoch"] = _passes(own["epoch"], first_epoch)
    _check_source(own)
    if "width" not in own and "parameters_trained" in own:
        # Networks with different numbers of parameters are different networks.
        own["width"] = own["parameters_trained"]
    known = tuple(own.columns)
    own[ARM] = _arms(own)
    for missing, kind in _KINDS.items():
        if missing not in own:
            own[missing] = _default(missing, kind, any(source in known for source in _SOURCE))
    return _study(own, known, name)


def table(
    frame: Any,
    *,
    plain: Mapping[str, Any] | None = None,
    first_epoch: int | None = None,
    name: str = "table",
    **columns: str,
) -> Study:
    """Deprecated: use `from_dataframe(frame, columns, constants=plain)`."""
    warn_deprecated("analysis.load.table", "analysis.load.from_dataframe")
    return from_dataframe(frame, columns, constants=plain, first_epoch=first_epoch, name=name)


def _as_pandas(frame: Any) -> pd.DataFrame:
    if isinstance(frame, pd.DataFrame):
        return frame
    hint = ": collect() it first" if hasattr(frame, "collect") else ""
    wrong = (
        f"frame: {type(frame).__name__} is not a table{hint}. Pass a pandas, Polars or Arrow table."
    )
    if not hasattr(frame, "__arrow_c_stream__"):
        raise ValueError(wrong)
    try:
        made: pd.DataFrame = pa.table(frame).to_pandas()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{wrong} ({error})") from error
    return made


def _own(
    frame: pd.DataFrame, columns: Mapping[str, str], constants: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the table with our names and types, and an index from 0."""
    if "test_error" not in columns:
        raise ValueError(
            "columns: 'test_error' is missing. Name its column: columns={'test_error': 'error'}."
        )
    for ours in columns:
        _check_name("columns", ours, _NAMES)
    for ours in constants:
        _check_name("constants", ours, _CONSTANTS)
        if ours in columns:
            raise ValueError(f"constants[{ours!r}]: {ours} is the column {columns[ours]!r} already")
    if frame.empty:
        raise ValueError("frame: it has no line")
    own: dict[str, pd.Series] = {}
    for ours, theirs in columns.items():
        what = f"columns[{ours!r}]={theirs!r}"
        if theirs not in frame.columns:
            there = ", ".join(map(repr, frame.columns))
            raise ValueError(f"{what}: choose one of the table's columns, {there}")
        values = frame[theirs]
        if isinstance(values, pd.DataFrame):
            raise ValueError(f"{what}: the table has several columns of this name")
        own[ours] = _typed(ours, what, values.reset_index(drop=True))
    for ours, value in constants.items():
        what = f"constants[{ours!r}]"
        own[ours] = _typed(ours, what, pd.Series([value] * len(frame)))
    return pd.DataFrame(own)


def _check_name(argument: str, ours: str, choices: Sequence[str]) -> None:
    if ours not in choices:
        raise ValueError(f"{argument}[{ours!r}]: no such name, choose from {', '.join(choices)}")


def _typed(ours: str, what: str, values: pd.Series) -> pd.Series:
    """Convert values to the type of our column. Raises ValueError with the first invalid value."""
    empty = values.isna()
    if empty.any():
        line = int(np.flatnonzero(empty)[0])
        raise ValueError(
            f"{what}: line {line} has no value (lines count from 0); nothing is filled in"
        )
    if ours == ARM or _KINDS.get(ours) == "name":
        texts = values.astype(str)
        if ours == ARM:
            _check(~texts.isin(ARMS), texts, what, f"choose one of {', '.join(ARMS)}")
        return texts.astype(object)
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    _check(~np.isfinite(numbers.to_numpy()), values, what, "a finite number is needed")
    if ours in _ERRORS:
        _check(
            (numbers < 0) | (numbers > 1),
            values,
            what,
            "errors are fractions in [0, 1]: divide per cent by 100, and take accuracy from 1",
        )
    elif _KINDS.get(ours) == "fraction":
        _check((numbers < 0) | (numbers >= 1), values, what, "a fraction in [0, 1) is needed")
    elif _KINDS.get(ours) == "count":
        _check(numbers < 0, values, what, "a number is needed, 0 or more")
        if (numbers % 1 != 0).any():  # any axis may be a float, such as a width in thousands
            return numbers
        return (values if values.dtype.kind in "iu" else numbers).astype(np.int64)
    elif ours in _KINDS or ours in SIZES or ours == "step":
        _check(
            (numbers < 0) | (numbers % 1 != 0), values, what, "a whole number is needed, 0 or more"
        )
        # Converting integers to float first would lose bits of 64-bit seeds.
        whole: pd.Series = (values if values.dtype.kind in "iu" else numbers).astype(np.int64)
        return whole
    elif ours == "epoch":
        _check(numbers < 0, values, what, "epochs are 0 or more")
    return numbers


def _check(wrong: pd.Series[bool] | np.ndarray, values: pd.Series, what: str, rule: str) -> None:
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0])
        value = values.iloc[line]
        value = value.item() if isinstance(value, np.generic) else value
        raise ValueError(f"{what}: {value!r} in line {line} (from 0): {rule}")


def _passes(epochs: pd.Series, first_epoch: int | None) -> pd.Series:
    """Convert epochs to passes over the training images; 0 is before training."""
    if first_epoch not in (None, 0, 1):
        raise ValueError(f"first_epoch={first_epoch!r}: choose 0 or 1")
    if first_epoch is None and (epochs == 0).any():
        raise ValueError(
            "first_epoch=None, but there is an epoch 0: choose 1 (0 is before training) or 0 (0 is the "
            "end of the first epoch)"
        )
    return epochs + 1 if first_epoch == 0 else epochs


def _check_source(own: pd.DataFrame) -> None:
    has_source = "source_task" in own or ARM in own
    if "frozen" in own and (own["frozen"] > 0).any() and not has_source:
        raise ValueError(
            "frozen: layers are frozen, so say from which task they come: "
            "columns={'source_task': …}, or constants={'source_task': …} ('none': frozen at random, "
            "'pretrained': timm's weights)"
        )


def _arms(own: pd.DataFrame) -> pd.Series:
    """Return each row's arm by the rules of `arms.arm` that the table's columns allow."""
    if ARM in own:
        return own[ARM]
    frozen = own["frozen"] if "frozen" in own else pd.Series(0, own.index)
    alone = np.where(frozen > 0, RANDOM_FROZEN, SCRATCH)
    has_source = any(name in own for name in _SOURCE)
    source = own.get("source_task", pd.Series(NOT_KNOWN if has_source else NONE, own.index))
    task = own["task"] if "task" in own else pd.Series("", own.index)
    known = [source == NONE, source == PRETRAINED, source == task]
    arms = np.select(known, [alone, FROM_PRETRAINED, SAME_TASK], TRANSFER)
    return pd.Series(arms, own.index, dtype=object)


def _default(name: str, kind: str, has_source: bool) -> Plain:
    absent = next(c.absent for c in COORDINATES if c.name == name)
    if absent is not None and not (kind == "name" and has_source):
        return absent
    return NOT_KNOWN if kind == "name" else 0.0 if kind == "fraction" else 0


def _study(own: pd.DataFrame, known: Sequence[str], name: str) -> Study:
    times = [time for time in _TIMES if time in known]
    measured = [column for column in _MEASURED if column in known]
    cell = [*(coordinate for coordinate in _KINDS if coordinate != "seed"), ARM]
    _check_twins(own, [*cell, "seed"], times, known)
    sizes = [size for size in SIZES if size in known]
    evaluations: dict[str, Evaluations] = {}
    lines, values = [], {}
    for number, (key, rows) in enumerate(grouped(own, [*cell, "seed"], sort=False), start=1):
        rows = rows.sort_values(times) if times else rows
        where = dict(zip([*cell, "seed"], key, strict=True))
        for size in sizes:
            if rows[size].nunique() > 1:
                raise ValueError(f"{size}: {_text(rows.iloc[0], known)} has several values of it")
        unknown = np.full(len(rows), np.nan)
        epochs = rows["epoch"].to_numpy() if "epoch" in known else unknown
        steps = rows["step"].to_numpy() if "step" in known else np.full(len(rows), -1)
        run_id = f"curve-{number}"
        lines.append(
            {"run_id": run_id, **where, "start": NOT_KNOWN, "state": DONE, "why": ""}
            | {size: float(rows[size].iloc[0]) if size in sizes else np.nan for size in SIZES}
            | dict.fromkeys(PROVENANCE)
            | {
                "num_rows": len(rows),
                "last_epoch": float(epochs[-1]),
                "last_step": int(steps[-1]) if "step" in known else None,
                "evaluations": name_evaluations(epochs, steps, evaluations),
            }
        )
        values[run_id] = {column: rows[column].to_numpy() for column in measured}
    cells = with_cuts(pd.DataFrame(lines, columns=COLUMNS).set_index("run_id"))
    _check_epochs(cells, cell, evaluations, known)
    rows_of = TableRows(values, tuple(measured), tuple(known))
    return Study(
        name=name, wanted=(), cells=cells, evaluations=evaluations, partial=False, rows=rows_of
    )


def _check_twins(
    own: pd.DataFrame, curve: Sequence[str], times: Sequence[str], known: Sequence[str]
) -> None:
    for keys in [[*curve, time] for time in times] or [list(curve)]:
        doubled = own.duplicated(keys, keep=False)
        if doubled.any():
            (_, twins), *_ = own[doubled].groupby(keys, sort=False)
            line, first, second = twins.iloc[0], *twins.index[:2]
            at = "".join(f", {time} {line[time]:g}" for time in times if time in keys)
            raise ValueError(
                f"lines {first} and {second} (from 0) are both {_text(line, known)}{at}: one is needed. "
                "Add the column in which they differ: a seed, an epoch, a coordinate."
            )


def _check_epochs(
    cells: pd.DataFrame,
    cell: Sequence[str],
    evaluations: Mapping[str, Evaluations],
    known: Sequence[str],
) -> None:
    for _, lines in grouped(cells, cell, sort=False):
        others = lines[lines["evaluations"] != lines["evaluations"].iloc[0]]
        if len(others):
            line, first = others.iloc[0], lines.iloc[0]
            num, expected = (len(evaluations[one["evaluations"]].epochs) for one in (line, first))
            raise ValueError(
                f"{_text(line, known)} was evaluated at other epochs than seed {first['seed']} ({num} "
                f"epochs, not {expected}); all seeds of a cell need the same epochs"
            )


def _text(line: pd.Series[Any], known: Sequence[str]) -> str:
    names = [name for name in (*_KINDS, ARM) if name in known and name != "seed"]
    return ", ".join(f"{name} {line[name]}" for name in [*names, "seed"])
