"""Open a study for reading, and describe it in a few lines."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.load import export
from analysis.load.arms import DEFAULT_ARM, SOURCE, TRANSFER
from analysis.load.cells import ENDED, STATES, cells_of, list_cuts, selected
from analysis.load.rows import Evaluations, Rows, TableRows, read, survey
from study.deprecation import warn_deprecated
from study.messages import did_you_mean
from study.run import Run
from study.store import Store, open_store, read_study, schema, study_names
from study.store.schema import DAMAGED, DIVERGED, FAILED, MISSING, OTHER_START

MAX_LISTED: Final = 8
_NONE: Final = ("none", 0, "")


def lines_of(name: str, cells: pd.DataFrame, coverage: Mapping[str, int]) -> list[tuple[str, str]]:
    """Describe a `Study` by its `cells` and `coverage`: return five pairs of a label and its text."""
    targets = cells[cells["arm"] != SOURCE]
    targets = targets if len(targets) else cells
    counts = ", ".join(f"{n:,} {state}" for state, n in coverage.items() if n)
    width = targets["width"].map(lambda value: f" width {value}" if value else "")
    networks = _listed((targets["model"] + width).str.strip(), "")
    epochs = cells.loc[cells["state"].isin(ENDED), "last_epoch"]
    ends = f", up to {epochs.max():,.6g} epochs" if epochs.notna().any() else ""
    noise = ", ".join(f"{value:.0%}" for value in sorted(targets["label_noise"].unique()))
    return [
        ("study", f"{name}: {len(cells):,} Runs ({counts})"),
        (
            "targets",
            f"{_listed(targets['task'])}; {_listed(targets['size'])} images; label noise {noise}",
        ),
        ("sources", _sources(targets)),
        ("networks", f"{networks}; {list_cuts(targets)}"),
        ("seeds", f"{_listed(targets['seed'])}{ends}; arms: {_listed(cells['arm'])}"),
    ]


def text_of(pairs: list[tuple[str, str]]) -> str:
    longest = max(len(word) for word, _ in pairs)
    return "\n".join(f"{word:{longest}}  {text}" for word, text in pairs)


def html_of(pairs: list[tuple[str, str]]) -> str:
    left = "style='text-align:left'"
    rows = "".join(
        f"<tr><th {left}>{word}</th><td {left}>{html.escape(text)}</td></tr>"
        for word, text in pairs
    )
    return f"<table>{rows}</table>"


def _sources(targets: pd.DataFrame) -> str:
    named = targets[~targets["source_task"].isin(_NONE)]
    if named.empty:
        return "none"
    sizes = named.loc[named["source_size"] > 0, "source_size"]
    return _listed(named["source_task"]) + (f"; {_listed(sizes)} images" if len(sizes) else "")


def _listed(values: pd.Series, empty: str = "none") -> str:
    """List the distinct values in order; above MAX_LISTED, only the first values and the last."""
    found = sorted(values.unique(), key=lambda value: (isinstance(value, str), value))
    texts = [
        value if isinstance(value, str) else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"
        for value in found
    ]
    if len(texts) > MAX_LISTED:
        texts = [*texts[: MAX_LISTED - 2], "…", texts[-1]]
    return ", ".join(texts) or empty


class Incomplete(ValueError):
    """Raised if wanted Runs, `runs`, have no readable rows and `partial` is False.

    `what`: the message without the advice on `partial`.
    """

    def __init__(
        self, what: str, runs: tuple[Run, ...], instead: str = "NaN in their cells"
    ) -> None:
        super().__init__(f"{what}. Pass partial=True to have {instead}")
        self.what, self.runs = what, runs


@dataclass(frozen=True, kw_only=True)
class AddedColumn:
    """A column computed from measured columns, Run by Run.

    `compute` receives one array of shape (rows,), in row order, for each name in `needs`; it returns an
    array of the same shape.
    """

    name: str
    needs: tuple[str, ...]
    compute: Callable[..., np.ndarray]
    unit: str = ""
    meaning: str = ""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Study:
    """A study's wanted Runs and their rows.

    - `wanted`: every Run of the study, including sources, in the study's order; empty for a
      user's table of curves (`load.from_dataframe`).
    - `cells`: a DataFrame with one line per wanted Run, in this order, indexed by run id. Columns:
      coordinates (`study.run.COORDINATES`; "none" and 0 without a source), `arm` (`arms.arms`), `cut`
      (`frozen` in words; `frozen` is fractional if a layer is cut inside), `state` (one of `STATES`) and
      `why` (reason, if failed or damaged). Only for Runs with rows: sizes of network and task, `num_rows`,
      `last_epoch`, `last_step`, `evaluations` and provenance.
    - `evaluations`: epochs and steps at which Runs were evaluated, by the name in `cells.evaluations`.
    - `partial`: whether the study was opened with partial=True; if so, missing cells of surfaces are NaN.
    """

    name: str
    wanted: tuple[Run, ...]
    cells: pd.DataFrame
    evaluations: Mapping[str, Evaluations]
    partial: bool
    rows: Rows = field(repr=False)
    added: Mapping[str, AddedColumn] = field(default_factory=dict)

    def __repr__(self) -> str:
        return text_of(lines_of(self.name, self.cells, self.coverage))

    def _repr_html_(self) -> str:
        return html_of(lines_of(self.name, self.cells, self.coverage))

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Return the lines of `cells` whose Runs have rows: finished or diverged."""
        return self.cells[self.cells["state"].isin(ENDED)]

    @property
    def measured(self) -> tuple[str, ...]:
        """Return the names of the measured columns: `schema.MEASUREMENTS`, or a user's table's columns."""
        if isinstance(self.rows, TableRows):
            return self.rows.measured
        return tuple(column.name for column in schema.MEASUREMENTS)

    def has_coordinate(self, name: str) -> bool:
        """Return False if the study is a user's table without this coordinate (`load.from_dataframe`)."""
        return not isinstance(self.rows, TableRows) or name in self.rows.known

    def arm_of(self, given: str) -> str:
        """Resolve DEFAULT_ARM: "transfer", or the only arm of a user's table without transfer.

        Return any other arm unchanged. Raises ValueError if a table without transfer has several arms.
        """
        if given != DEFAULT_ARM:
            return given
        there = sorted(set(self.cells["arm"]))
        if not isinstance(self.rows, TableRows) or TRANSFER in there:
            return TRANSFER
        if len(there) > 1:
            raise ValueError(f"arm: the table has no transfer, choose one of {', '.join(there)}")
        return str(there[0])

    def tells(self, coordinate: str) -> bool:
        """Deprecated: use `has_coordinate`."""
        warn_deprecated("analysis.load.Study.tells", "Study.has_coordinate")
        return self.has_coordinate(coordinate)

    @property
    def missing(self) -> tuple[Run, ...]:
        """Return Runs without usable rows that have not failed; `cells.state` has the reason.

        Such a Run is not begun, unfinished or damaged, or used start weights that were replaced later.
        """
        return self._in_state(MISSING, DAMAGED, OTHER_START)

    @property
    def failed(self) -> tuple[Run, ...]:
        """Return Runs that failed, or whose start failed, and will not be retried."""
        return self._in_state(FAILED)

    @property
    def diverged(self) -> tuple[Run, ...]:
        """Return Runs that ended because a loss was not finite."""
        return self._in_state(DIVERGED)

    @property
    def coverage(self) -> dict[str, int]:
        """Return the number of wanted Runs in each of `STATES`."""
        counts = Counter(self.cells["state"])
        return {state: counts[state] for state in STATES}

    def read(self, columns: Sequence[str] | None = None, **select: Any) -> pa.Table:
        """Return the rows of the selected Runs: `run_id`, then `columns` (default: all measured).

        `select`: see `cells.selected`. Rows are in the order of `cells`; each Run's rows, in epoch order.
        """
        names = list(columns) if columns is not None else list(self.measured)
        cells = selected(self.cells, select)
        ids = list(cells.index[cells["state"].isin(ENDED)])
        parts: dict[str, Mapping[str, np.ndarray]] = {}
        self.read_values(ids, names, parts.__setitem__)
        repeats = [len(parts[run_id][names[0]]) for run_id in ids] if names else [0] * len(ids)
        indices = pa.array(np.repeat(np.arange(len(ids)), repeats), pa.int32())
        arrays: dict[str, Any] = {
            "run_id": pa.DictionaryArray.from_arrays(indices, pa.array(ids, pa.string()))
        }
        for name in names:
            arrays[name] = np.concatenate([parts[run_id][name] for run_id in ids] or [np.empty(0)])
        return pa.table(arrays)

    def read_values(
        self,
        run_ids: Collection[str],
        columns: Sequence[str],
        use: Callable[[str, Mapping[str, np.ndarray]], None],
    ) -> None:
        """Call `use` with each Run's columns, measured or added: float64 (null is NaN) or int64.

        Calls come from several threads at a time, once per Run, in any order.

        Raises:
            ValueError: an unknown column.
        """
        self.require_columns(columns)
        needed = dict.fromkeys(
            need
            for name in columns
            for need in (self.added[name].needs if name in self.added else (name,))
        )
        # Epochs and steps were read when the study was opened.
        to_read = [name for name in needed if name not in ("epoch", "step")]
        name_of = self.cells["evaluations"].to_dict()

        def compute(run_id: str, values: Mapping[str, np.ndarray]) -> None:
            own = self.evaluations[name_of[run_id]]
            known = {"epoch": own.epochs, "step": own.steps, **values}
            given = {}
            for name in columns:
                if name in self.added:
                    extra = self.added[name]
                    given[name] = extra.compute(*(known[need] for need in extra.needs))
                else:
                    given[name] = known[name]
            use(run_id, given)

        if to_read:
            read(self.rows, run_ids, to_read, compute)
        else:
            for run_id in run_ids:
                compute(run_id, {})

    def require_columns(self, columns: Iterable[str]) -> None:
        """Raise ValueError, with the choices, for a column that is neither measured nor added."""
        choices = [*self.measured, *self.added]
        for name in columns:
            if name in choices:
                continue
            why = ""
            if name in schema.ROWS.names:
                why = f"the table of study {self.name!r} does not give it"
                why += ", so interpolation is not known; " if name == "train_error" else "; "
            raise ValueError(f"column {name!r}: {why}choose one of {', '.join(choices)}")

    def _in_state(self, *states: str) -> tuple[Run, ...]:
        chosen = set(self.cells.index[self.cells["state"].isin(states)])
        return tuple(run for run in self.wanted if run.id in chosen)


def open_study(
    root: str | Path,
    study: str | None = None,
    *,
    partial: bool = False,
    runs: Sequence[Run] | None = None,
) -> Study:
    """Open a study in a store (a directory or URI) or in a Parquet file of `study export`.

    `study` may be omitted if the store has only one study. Every byte of every rows file is checked.
    `runs`: the wanted Runs, only for a store; default: the wanted Runs of the last `study run`.

    Raises:
        Incomplete: wanted Runs have no rows, and `partial` is False.
        ValueError: an unknown study; the message lists the choices.
        FileNotFoundError: the store is missing.
    """
    if export.is_export(root):
        exported = export.open_export(root)
        if study not in (None, exported.study):
            raise ValueError(f"study {study!r}: {root} is an export of {exported.study!r}")
        name, wanted, failures = exported.study, exported.wanted, exported.failures
        rows: Rows = exported.rows
        found = exported.survey
    else:
        store = open_store(root)
        name = named_study(study, store)
        wanted = tuple(read_study(store, name) if runs is None else runs)
        failures = export.failures_of(store, wanted)
        rows, found = survey(store, [run.id for run in wanted])
    cells = cells_of(wanted, found, failures)
    opened = Study(
        name=name,
        wanted=wanted,
        cells=cells,
        evaluations=found.evaluations,
        partial=partial,
        rows=rows,
    )
    if not partial:
        require_rows(opened, opened.cells)
    return opened


def require_rows(study: Study, cells: pd.DataFrame) -> None:
    """Raise `Incomplete` if a Run in `cells`, lines of `study.cells`, has no rows."""
    absent = cells[~cells["state"].isin(ENDED)]
    if absent.empty:
        return
    counts = Counter(absent["state"])
    reasons = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    damaged = [f"{run_id} ({why})" for run_id, why in absent["why"].items() if why][:3]
    raise Incomplete(
        f"study {study.name!r}: {len(absent)} of {len(cells)} Runs have no rows to read "
        f"({reasons}){': ' + '; '.join(damaged) if damaged else ''}",
        tuple(run for run in study.wanted if run.id in absent.index),
    )


def add_column(
    study: Study,
    name: str,
    needs: Sequence[str],
    compute: Callable[..., np.ndarray],
    *,
    unit: str = "",
    meaning: str = "",
) -> Study:
    """Return the study with one more column for surfaces and `read`; nothing is written.

    `compute` receives the columns `needs` of one Run, each of shape (rows,), in row order, and returns an
    array of the same shape.

    Raises:
        ValueError: the name exists, or one of `needs` is unknown.
    """
    stored = [column.name for column in schema.MEASUREMENTS]
    if name in stored or name in schema.ROWS.names:
        raise ValueError(f"column {name!r} is one of the stored columns: choose another name")
    for need in needs:
        if need not in study.measured:
            choices = ", ".join(study.measured)
            raise ValueError(f"column {name!r} needs {need!r}: choose from {choices}")
    added = AddedColumn(
        name=name, needs=tuple(needs), compute=compute, unit=unit, meaning=meaning or name
    )
    return replace(study, added={**study.added, name: added})


def named_study(study: str | None, store: Store) -> str:
    """Return `study` if the store has it; for None, the name of the store's only study.

    Raises:
        ValueError: an unknown name, or None and there are several studies.
    """
    names = study_names(store)
    if not names:
        raise ValueError(f"{store.shown}: no study has been run here (studies/ is empty)")
    if study is None:
        if len(names) > 1:
            raise ValueError(f"{store.shown} has several studies, name one: {', '.join(names)}")
        return names[0]
    if study not in names:
        near = did_you_mean(study, names)
        raise ValueError(f"study {study!r}: {store.shown} has {', '.join(names)}{near}")
    return study
