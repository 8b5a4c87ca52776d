"""Read the similarity of source and target from a store as surfaces, and join it with capacities."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import xarray as xr

from analysis.load import Incomplete, Study
from analysis.load.arms import DEFAULT_ARM
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
UNREADABLE: Final = "unreadable"  # key in `attrs` of the result of `read`


def read(study: Study, run_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the similarity of these Runs (default: all that ended), indexed by (run_id, place).

    Columns are those of `study.store.similarity.COLUMNS`. A Run has no rows if its similarity file is
    missing (no source, or not measured) or corrupted, or was measured from start weights that the Run did
    not use; `attrs["unreadable"]` contains the reasons by run id.

    Raises:
        ValueError: if the study was opened from an export.
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
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    partial: bool | None = None,
    **select: Any,
) -> xr.Dataset:
    """Return all measures over "place", then the dimensions of `at_epoch`: float64.

    - Variables: "logme" (nats per image), "linear_cka", "linear_cka_debiased" and "effective_rank"
      (dimensions; NaN if an older file lacks it). To compare sizes, use the debiased CKA, because plain
      CKA is biased upwards for few images. The rank grows with the number of images.
    - Places: "cut", whose features depend on the frozen count, and "head", whose features are the same
      for every frozen count of one source, seed and set of target images.

    For `arm`, `partial` and `select` see `surfaces.over_epochs`. Values are NaN if a Run has no source or
    a measure has no value (`study.store.similarity.Similarity`). With `partial`, missing similarities are
    NaN and listed in `attrs["absent"]`.

    Raises:
        load.Incomplete: if a Run with a source has no similarity, unless `partial`.
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
    """Join capacity and similarity of the same Runs to a table with one row per cell of the grid.

    Args:
        capacity: see `derived.effective_capacity`.
        similarity: a measure of `similarity_surfaces` at one place, of the same Runs.
        size: the number of target images of the similarity in all rows (default: the largest). Every
            measure depends on this number.

    Returns:
        Columns: the dimensions except size, then `cut` (in words), `capacity` (images), `censored`,
        `monotone`, `similarity_size` (images) and the measure by its name. Cells without capacity or
        similarity are left out and counted in `attrs["num_left_out"]`.

    Raises:
        ValueError: for an unknown size, or if capacity and similarity are not over the same grid.
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
    frame = joined[columns].to_dataframe(dim_order=dims).reset_index()[[*dims, "cut", *columns]]
    frame.insert(len(dims) + 4, "similarity_size", size)
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
