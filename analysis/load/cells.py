"""Make the table of wanted Runs with their coordinates, arms and states; select lines of the table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.load.arms import arms
from analysis.load.rows import SIZES, Facts, Survey
from study.fields import Plain
from study.run import COORDINATES, GROUPS, PRETRAINED, Run, coordinates
from study.store.provenance import FIRST_TRAINER
from study.store.schema import DAMAGED, DIVERGED, DONE, FAILED, MISSING, OTHER_START

STATES: Final = (DONE, DIVERGED, FAILED, MISSING, DAMAGED, OTHER_START)
ENDED: Final = (DONE, DIVERGED)

ARM: Final = "arm"  # the only coordinate that depends on the study's other Runs
NAMES: Final = (*(coordinate.name for coordinate in COORDINATES), ARM)

# AXES: the dimensions of surfaces, in order. CELL: the coordinates that identify a cell, without the seed.
AXES: Final = tuple(
    c.name for group in GROUPS for c in COORDINATES if c.is_axis and c.group == group
)
CELL: Final = tuple(c.name for c in COORDINATES if c.makes_cell)

MAX_CUTS: Final = 4  # most cuts that are listed one by one

# Values for coordinates that a Run does not have.
_ABSENT: Final = {c.name: c.absent for c in COORDINATES if c.absent is not None}

FOUND: Final = (*SIZES, "num_rows", "last_epoch", "last_step", "evaluations")
PROVENANCE: Final = (
    "trainer",
    "code_version",
    "packages",
    "device",
    "host",
    "began_at",
    "ended_at",
    "num_resumes",
    "weights_digest",
    "start_digest",
    "predictions_digest",
    "task_fingerprint",
)
COLUMNS: Final = ("run_id", *NAMES, "cut", "state", "why", *FOUND, *PROVENANCE)


def cells_of(wanted: Sequence[Run], found: Survey, failures: Mapping[str, str]) -> pd.DataFrame:
    """Return the table of all wanted Runs, in their order, indexed by run id (`load.Study.cells`)."""
    arm_of = arms(wanted)
    lines = []
    for run in wanted:
        facts, source = found.facts.get(run.id), run.source
        line: dict[str, Any] = {"run_id": run.id, **_coordinates(run), ARM: arm_of[run.id]}
        if facts is not None:
            last = found.evaluations[facts.evaluations]
            line |= {name: getattr(facts, name) for name in SIZES}
            line |= {
                "state": _state(facts, found.facts.get(source.id) if source else None),
                "why": "",
                "num_rows": facts.num_rows,
                "last_epoch": float(last.epochs[-1]),
                "last_step": int(last.steps[-1]),
                "evaluations": facts.evaluations,
            }
            line |= {name: facts.provenance.get(name) for name in PROVENANCE}
            # Exports of release 0.1.0 do not contain `trainer`.
            line["trainer"] = facts.provenance.get("trainer", FIRST_TRAINER)
            line["packages"] = ", ".join(f"{k} {v}" for k, v in sorted(line["packages"].items()))
        elif run.id in found.damaged:
            line |= {"state": DAMAGED, "why": found.damaged[run.id]}
        elif run.id in failures:
            line |= {"state": FAILED, "why": failures[run.id]}
        else:
            line |= {"state": MISSING, "why": ""}
        lines.append(line)
    cells = pd.DataFrame(lines, columns=COLUMNS).set_index("run_id")
    return with_cuts(cells)


def with_cuts(cells: pd.DataFrame) -> pd.DataFrame:
    """Set the columns `cut` (`cut_in_words`) and `frozen` (`cut_place`).

    The sizes of a network come from any of its Runs with rows; without such a Run, from the largest cuts
    of its wanted Runs.
    """
    networks = [cells["model"], cells["width"]]

    def known(name: str, of: list[pd.Series[Any]], otherwise: pd.Series[Any]) -> pd.Series[float]:
        if name not in cells:  # a table of curves
            return otherwise
        most: pd.Series[float] = cells[name].astype(float).groupby(of).transform("max")
        return most.where(most > 0, otherwise)

    frozen, channels, pieces, read = (
        cells[name] for name in ("frozen", "trained_channels", "frozen_pieces", "head_inputs")
    )
    asked_of = frozen.where(channels > 0).groupby(networks).transform("max")
    last = known("num_layers", networks, asked_of + 1) - 1
    num_channels = known("num_channels", networks, channels.groupby(networks).transform("max"))
    at_cut = [*networks, frozen]
    num_pieces = known("num_pieces", at_cut, pieces.groupby(at_cut).transform("max") + 1)
    cuts = zip(frozen, channels, pieces, last, num_channels, num_pieces, read, strict=True)
    cells = cells.assign(cut=[cut_in_words(*cut) for cut in cuts])
    if not ((channels > 0) | (pieces > 0) | (read > 0)).any():
        return cells
    last_piece = known("last_piece_channels", networks, 0 * channels)
    return cells.assign(
        frozen=cut_place(
            frozen,
            channels,
            pieces,
            read,
            last=last,
            num_channels=num_channels,
            last_piece_channels=last_piece,
            num_pieces=num_pieces,
        )
    )


def cut_in_words(
    frozen: float,
    trained_channels: float,
    frozen_pieces: float,
    last: float,
    num_channels: float,
    num_pieces: float,
    head_inputs: float = 0,
) -> str:
    """Describe a cut: "nothing frozen", "8 layers + 28 of 32 channels frozen", "head only".

    If the head reads only 4 features: "head only, 4 features". If all channels of the last layer before
    the head are trained, its other weights are still frozen: "8 layers + part of layer 9 frozen".
    Arguments: as in `cut_place`; `last` may be NaN.
    """
    part = ""
    if head_inputs > 0:
        return f"head only, {head_inputs:.0f} feature{'' if head_inputs == 1 else 's'}"
    if frozen_pieces > 0:
        part = f"{frozen_pieces:.0f} of {num_pieces:.0f} pieces"
    elif trained_channels > 0:
        frozen = frozen - 1
        left = num_channels - trained_channels
        part = (
            f"{left:.0f} of {num_channels:.0f} channels"
            if left
            else f"part of layer {frozen + 1:g}"
        )
    elif frozen == 0:
        return "nothing frozen"
    elif frozen == last:
        return "head only"
    layers = f"{frozen:g} layer{'' if frozen == 1 else 's'}" if frozen else ""
    return f"{' + '.join(filter(None, [layers, part]))} frozen"


def list_cuts(cells: pd.DataFrame) -> str:
    """List the cuts from few to many trained parameters; above MAX_CUTS, only the first and the last."""
    cuts = cells.sort_values("frozen", ascending=False)["cut"].unique().tolist()
    if len(cuts) > MAX_CUTS:
        return f"{len(cuts)} cuts from {cuts[0]} to {cuts[-1]}"
    return ", ".join(cuts)


def cut_place(
    frozen: pd.Series[Any],
    trained_channels: pd.Series[Any],
    frozen_pieces: pd.Series[Any],
    head_inputs: pd.Series[Any],
    *,
    last: pd.Series[Any],
    num_channels: pd.Series[Any],
    last_piece_channels: pd.Series[Any],
    num_pieces: pd.Series[Any],
) -> pd.Series[float]:
    """Return each cut as a number of frozen layers, fractional inside a layer; different cuts differ.

    - m of n channels trained: `frozen` − m / (n + 1), about 8.75 for a quarter of the ninth layer. It is
      above 8 even if all channels are trained, because the layer's other weights are frozen.
    - p of q pieces frozen: `frozen` + p / q, except in the layer before the head.
    - Pieces with c channels trained in the layer before the head: between c and c + 1 trained channels.
    - Head that reads k features: `last` + 1 / (2 + log2 k).

    `last`: the index of the head. Arguments and result: (Runs,); for the sizes see `schema.Sizes`.
    """
    trained = num_pieces - frozen_pieces
    before_last = (trained - 1) * (num_channels - last_piece_channels) / (num_pieces - 1)
    as_channels = np.floor(before_last) + last_piece_channels + trained / (num_pieces + 1)
    place = frozen + frozen_pieces / num_pieces
    beside_channels = (frozen_pieces > 0) & (frozen == last - 1)
    place = place.where(~beside_channels, last - as_channels / (num_channels + 1))
    after_last = 1 / (2 + np.log2(head_inputs.clip(lower=1)))
    place = place.where(head_inputs == 0, last + after_last)
    return place - trained_channels / (num_channels + 1)


def _coordinates(run: Run) -> dict[str, Plain]:
    known = {k: _ABSENT.get(k) if v is None else v for k, v in coordinates(run).items()}
    if run.start == PRETRAINED:
        known["source_task"] = PRETRAINED
    return known


def _state(facts: Facts, source: Facts | None) -> str:
    # A start that is retrained on a GPU has different bits: results from both versions must not be mixed.
    if source is not None:
        used, there = facts.provenance.get("start_digest"), source.provenance.get("weights_digest")
        if used is not None and there is not None and used != there:
            return OTHER_START
    return DIVERGED if facts.outcome == DIVERGED else DONE


def selected(cells: pd.DataFrame, select: Mapping[str, Any]) -> pd.DataFrame:
    """Return the lines of `cells` that match `select`: each column has the value, or one of the values.

    Raises:
        ValueError: an unknown column or value; the message lists the choices.
    """
    for name, wanted in select.items():
        if name not in cells.columns:
            raise ValueError(f"select {name!r}: choose from {', '.join(cells.columns)}")
        is_one = isinstance(wanted, str) or not isinstance(wanted, Collection | np.ndarray)
        values = [wanted] if is_one else list(wanted)
        for value in values:
            if not (cells[name] == value).any():
                choices = ", ".join(
                    repr(v) for v in _plain(sorted(cells[name].unique(), key=_order))
                )
                raise ValueError(f"{name}={value!r}: choose from {choices}")
        cells = cells[cells[name].isin(values)]
    return cells


def grouped(
    cells: pd.DataFrame, names: Sequence[str], *, sort: bool = True
) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Group `cells` by the columns `names`; yield each group's values and lines, without lines with NaN.

    `sort`: order groups by their values; if False, by their first lines.
    """
    if cells.empty:
        return
    # Leaving columns with a single value out of the groupby makes the claims a quarter faster.
    firsts = {name: cells[name].iat[0] for name in names}
    varying = [name for name in names if not (cells[name].to_numpy() == firsts[name]).all()]
    if not varying:
        yield tuple(firsts.values()), cells
        return
    for key, lines in cells.groupby(varying, sort=sort):
        yield tuple((firsts | dict(zip(varying, key, strict=True))).values()), lines


def _plain(values: Sequence[Any]) -> list[Any]:
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _order(value: Any) -> tuple[str, Any]:
    # Provenance may be None, which cannot be compared with strings.
    return type(value).__name__, "" if value is None else value
