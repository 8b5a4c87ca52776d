"""Similarity of source and target as surfaces, joined to the study's other ones.

Owns how the similarity files of a store (`study.store.similarity`) become labelled arrays, and what
stands beside a capacity. Refuses to compute a similarity, to fill in an absent one, and to take one
measured from other weights of a start for that of the Run that was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import xarray as xr

from analysis.load import Incomplete, Study
from analysis.load.arms import TRANSFER
from analysis.load.cells import ENDED
from analysis.load.rows import StoreRows
from analysis.surfaces.grid import axes_of, chosen, empty, flat_index, parameters
from study.store import Damaged, Store, similarity
from study.store.similarity import MEASURES, PLACES

NAMES: Final = {
    "logme": "LogME",
    "linear_cka": "linear CKA",
    "linear_cka_debiased": "linear CKA, debiased,",
    "effective_rank": "effective rank of the features",
}
NUM_READERS: Final = 16
UNREADABLE: Final = "unreadable"  # attrs of `read`: why, by id of Run


def read(study: Study, run_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """The similarity of these Runs (default: all that ended), indexed by (run_id, place).

    Columns are those of `study.store.similarity.COLUMNS`. A Run without source has none; one whose
    start was another than that looked at has none either, and neither has one whose file is absent or
    damaged: `attrs["unreadable"]` says why, by run id. Raises ValueError for a study that was opened
    from an export.
    """
    if not isinstance(study.rows, StoreRows):
        raise ValueError(
            f"study {study.name!r} was opened from an export, which holds no similarity: open the store"
        )
    ended = study.cells[study.cells["state"].isin(ENDED)]
    ids = list(ended.index if run_ids is None else ended.index.intersection(list(run_ids)))
    store = study.rows.store
    with ThreadPoolExecutor(NUM_READERS) as readers:
        found = dict(zip(ids, readers.map(lambda i: _read_one(store, i), ids), strict=True))
    tables, why = [], {}
    for run_id, table in found.items():
        used = ended.loc[run_id, "start_digest"]
        if isinstance(table, str):
            why[run_id] = table
        elif pd.notna(used) and table["start_digest"][0].as_py() != used:
            why[run_id] = "measured from other weights of its start"
        else:
            tables.append(table)
    rows = pa.concat_tables([similarity.TABLE.empty_table(), *tables])
    frame: pd.DataFrame = rows.to_pandas()
    frame = frame.set_index(["run_id", "place"])
    frame.attrs[UNREADABLE] = why
    return frame


def _read_one(store: Store, run_id: str) -> pa.Table | str:
    try:
        return similarity.read(store, run_id)
    except FileNotFoundError:
        return "not measured"
    except Damaged as damaged:
        return str(damaged)


def similarity_surfaces(
    study: Study,
    *,
    arm: str | Sequence[str] | None = TRANSFER,
    partial: bool | None = None,
    **select: Any,
) -> xr.Dataset:
    """All measures over "place", then the dimensions of `at_epoch`: float64.

    - "logme" (nats per image), "linear_cka", "linear_cka_debiased", and "effective_rank" (dimensions;
      NaN in files that lack it). Plain CKA is biased upwards for few images, so over sizes compare the
      debiased one; the rank grows with the images.
    - place "cut" or "head": at the cut the features change with the frozen count; at the head they are
      the same for every frozen count of one source, seed and set of target images.

    `arm`, `partial` and `select` as in `surfaces.over_epochs`. NaN where a Run has no source, and
    where a measure has no value (`study.store.similarity.Similarity`). Raises `load.Incomplete` where the
    similarity of a Run that has a source is absent, unless `partial`; they are then NaN, and listed in
    `attrs["absent"]`.
    """
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    blocks = empty(list(NAMES), (len(PLACES), *(len(axis) for axis in axes.values())))
    with_source = cells.index[cells["source_recipe"] != "none"]
    frame = read(study, list(with_source))
    absent = with_source.difference(frame.index.unique("run_id"), sort=False)
    if len(absent) and not (study.partial if partial is None else partial):
        reasons = frame.attrs[UNREADABLE]
        some = "; ".join(f"{run_id} ({reasons[run_id]})" for run_id in absent[:3])
        raise Incomplete(
            f"study {study.name!r}: {len(absent)} of {len(with_source)} Runs have no similarity to "
            f"read: {some}",
            tuple(run for run in study.wanted if run.id in absent),
        )
    where = flat_index(cells, axes)
    shared = {"study": study.name, "absent": list(absent)}
    dims = ("place", *axes)
    dataset = xr.Dataset(coords={"place": list(PLACES)} | axes | parameters(cells, axes))
    for column in MEASURES:
        block = blocks[column.name]
        for layer, place in zip(block, PLACES, strict=True):
            here = frame[frame.index.get_level_values("place") == place][column.name].droplevel(
                "place"
            )
            layer.reshape(-1)[[where[run_id] for run_id in here.index]] = here.to_numpy()
        attrs = {"units": column.unit, "long_name": NAMES[column.name]} | shared
        dataset[column.name] = (dims, block, attrs)
    return dataset.assign_attrs(shared)


def capacity_and_similarity(
    capacity: xr.Dataset, similarity: xr.DataArray, *, size: int | None = None
) -> pd.DataFrame:
    """Capacity and similarity of the same Runs side by side: a line for each place of the grid.

    - `capacity`: as `derived.effective_capacity` gives it; `similarity`: a measure of
      `similarity_surfaces` at one place, of the same Runs.
    - `size`: the number of target images at which similarity is taken (default: the largest). One for
      all, because every measure depends on it.

    Columns: the dimensions but for size, then `capacity` (images), `censored`, `monotone`,
    `similarity_size` (images) and the measure under its name. Places where either is NaN are left out;
    `attrs["num_left_out"]` says how many. Raises ValueError for a size that is not there, and where the
    two are not over the same grid.
    """
    sizes = similarity["size"].values
    if sizes.ndim == 0:
        raise ValueError("similarity: its dimension 'size' is gone, do not squeeze")
    size = int(sizes.max()) if size is None else size
    if size not in sizes:
        raise ValueError(f"size={size}: choose one of {', '.join(map(str, sizes))}")
    at_size = similarity.sel(size=size).drop_vars(["size", "parameters_trained", "share_trained"])
    try:
        joined = xr.merge([capacity, at_size], join="exact", compat="no_conflicts")
    except ValueError as error:
        raise ValueError("capacity and similarity are not over the same grid") from error
    dims = [str(dim) for dim in at_size.dims]
    columns = ["capacity", "censored", "monotone", str(similarity.name)]
    frame = joined[columns].to_dataframe(dim_order=dims).reset_index()[dims + columns]
    frame.insert(len(dims) + 3, "similarity_size", size)
    whole = frame.dropna(subset=["capacity", str(similarity.name)]).reset_index(drop=True)
    whole.attrs = {
        "num_left_out": len(frame) - len(whole),
        "value": str(similarity.name),
        "label": _label(similarity),
    }
    return whole


def _label(similarity: xr.DataArray) -> str:
    unit, name = similarity.attrs["units"], str(similarity.attrs["long_name"])
    return f"{name} ({unit})" if unit else name
