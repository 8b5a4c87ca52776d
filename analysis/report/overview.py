"""Write the start of a report: the answer in words, warnings, extent and gaps."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis.claims.verdict import DOES_NOT_HOLD, HOLDS, Verdict
from analysis.load import Study
from analysis.load.arms import SOURCE
from analysis.load.rows import StoreRows, TableRows
from analysis.report import slices
from analysis.report.slices import SliceSummary
from study.run import describe
from study.store.prepared_tasks import repeated_text
from study.store.schema import DIVERGED, DONE


def warnings(study: Study) -> list[str]:
    """Return sentences that a reader must know before any number, the most serious first."""
    found = []
    coverage = study.coverage
    gone = {state: n for state, n in coverage.items() if state not in (DONE, DIVERGED) and n}
    if gone:
        parts = ", ".join(f"{n} {state}" for state, n in gone.items())
        found.append(
            f"Partial: {sum(gone.values())} of {len(study.wanted)} Runs have no rows to read "
            f"({parts}). Their cells are absent below: hatched, never filled in."
        )
    if coverage[DIVERGED]:
        found.append(
            f"{coverage[DIVERGED]} Runs diverged: their loss was not finite, their rows end before. "
            "They are marked ×, and are in no mean at the end."
        )
    if isinstance(study.rows, TableRows):
        found.append(
            "The curves are those of a table, not of a store: nothing is known of what produced them."
        )
        if "train_error" not in study.measured:
            found.append("The table gives no train error: what interpolates is not known.")
    versions = study.runs["trainer"].nunique()
    if versions > 1:
        found.append(f"The rows were made by {versions} versions of the code: see Provenance.")
    seeds = study.cells.loc[study.cells["arm"] != SOURCE, "seed"].nunique()
    if seeds < 3:
        found.append(
            f"{seeds} seed{'s' if seeds > 1 else ''}: "
            + (
                "no spread between replicates is known."
                if seeds < 2
                else "intervals are very wide."
            )
        )
    if isinstance(study.rows, StoreRows):
        texts = (repeated_text(study.rows.store, task) for task in study.cells["task"].unique())
        found += filter(None, texts)
    fixed = slices.with_origins(study)["fixed_source_seed"] >= 0
    if fixed.any():
        found.append(
            "The source's seed is fixed in some cells: the spread over seeds leaves it out there."
        )
    return found


def paragraphs(text: str) -> list[tuple[str, str]]:
    """Split a docstring into ("p", one line) and, if indented, ("pre", unchanged text)."""
    parts = [part for part in inspect.cleandoc(text).split("\n\n") if part.strip()]
    return [
        ("pre", textwrap.dedent(part)) if part.startswith(" ") else ("p", " ".join(part.split()))
        for part in parts
    ]


def facts(study: Study) -> dict[str, str]:
    cells = study.cells[study.cells["arm"] != SOURCE]
    cells = cells if len(cells) else study.cells
    network = slices.with_origins(study).loc[cells.index, "network"]
    sources = [name for name in cells["source_task"].unique() if name != "none"]
    epochs = study.runs.loc[study.runs["state"] == DONE, "last_epoch"]
    facts = {
        "Runs": f"{study.coverage[DONE]:,} of {len(study.cells):,} done",
        "Sources": ", ".join(sources) or "none",
        "Target": ", ".join(cells["task"].unique()),
        "Network": ", ".join(network.unique()),
        "Label noise": ", ".join(f"{noise:.0%}" for noise in sorted(cells["label_noise"].unique())),
        "Source images": _listed(cells.loc[cells["source_size"] > 0, "source_size"]),
        "Training images": _listed(cells["size"]),
        "Frozen layers": _listed(cells["frozen"]),
        "Seeds": str(cells["seed"].nunique()),
        "Epochs": _listed(epochs) if epochs.nunique() < 6 else f"up to {epochs.max():,.0f}",
    }
    of = {
        "Target": "task",
        "Label noise": "label_noise",
        "Training images": "size",
        "Frozen layers": "frozen",
        "Seeds": "seed",
        "Epochs": "epoch",
    }
    return {k: v for k, v in facts.items() if v and (k not in of or study.has_coordinate(of[k]))}


def _listed(values: pd.Series) -> str:
    return ", ".join(
        f"{value:,.6g}" if value % 1 == 0 else f"{value:.4g}" for value in sorted(values.unique())
    )


def not_done(study: Study) -> list[dict[str, str]]:
    lines = study.cells[study.cells["state"] != DONE]
    runs = {run.id: run for run in study.wanted}
    return [
        {
            "id": str(run_id),
            "what": describe(runs[str(run_id)]),
            "state": line["state"],
            "why": line["why"] or "",
        }
        for run_id, line in lines.iterrows()
    ]


FREEZING: Final = "C4"
# The words for a claim that holds, and for one that does not.
WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "C1": (
        "the epoch-wise peak is higher with more target images",
        "the epoch-wise peak is not higher with more target images",
    ),
    "C2": (
        "a larger source set makes interpolation come later",
        "a larger source set does not make interpolation come later",
    ),
    "C3": (
        "fewer frozen layers interpolate more images",
        "fewer frozen layers do not interpolate more images",
    ),
    "C4": (
        "over the frozen layers the error descends twice, its peak near the edge of interpolation",
        "over the frozen layers the error does not descend twice near the edge of interpolation",
    ),
    "C5a": (
        "with most layers frozen the less related source is better, or on par",
        "with most layers frozen the less related source is worse",
    ),
    "C5b": (
        "near the peak the less related source is better",
        "near the peak the less related source is not better",
    ),
}
_NUMBERS: Final = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Count:
    """The curves that could show a peak, and those whose mean over the seeds shows one."""

    could: int
    face: int


def answer(study: Study, summaries: Sequence[SliceSummary], verdicts: Sequence[Verdict]) -> str:
    """Return the answer in one sentence; it counts the transfer's curves, or all without a transfer."""
    if not len(study.runs):
        return "No Run has rows yet: nothing can be said."
    decided = [one for one in verdicts if one.answer in (HOLDS, DOES_NOT_HOLD)]
    first = [_decided(one) for one in decided if one.claim == FREEZING]
    others = [_decided(one) for one in decided if one.claim != FREEZING]
    text = "; ".join(
        filter(
            None,
            [
                *first,
                _face_value(summaries, is_freezing_decided=bool(first)),
                *others,
                _undecided(study, verdicts, decided),
                _diverged(study),
            ],
        )
    )
    missing = len(study.wanted) - len(study.runs)
    if study.wanted and missing:
        text = f"so far, with {len(study.runs):,} of {len(study.wanted):,} Runs, {text}"
    return f"{text[0].upper()}{text[1:]}."


def freezing_count(summaries: Sequence[SliceSummary]) -> Count:
    """Count the peaks along the frozen layers after the last epoch."""
    return _sum(
        _count(one.freezing.sel(source=[line.label for line in one.main]))
        for one in summaries
        if one.has_freezing
    )


def epoch_counts(summaries: Sequence[SliceSummary]) -> dict[str, Count]:
    """Count the peaks along the epochs, by label noise; the key is "" for a single level."""
    noises = sorted({one.part.label_noise for one in summaries})
    found = {}
    for noise in noises:
        name = (
            ""
            if len(noises) == 1
            else f"with {noise:.0%} label noise"
            if noise
            else "without label noise"
        )
        found[name] = _sum(
            _count(one.epochs[line.label])
            for one in summaries
            if one.part.label_noise == noise
            for line in one.main
            if line.label in one.epochs
        )
    return found


def _count(peaks: xr.Dataset) -> Count:
    could = peaks["could"].values
    has_peak = could & np.isfinite(peaks["at"].values)
    return Count(could=int(could.sum()), face=int(has_peak.sum()))


def _sum(counts: Iterable[Count]) -> Count:
    some = list(counts)
    return Count(could=sum(one.could for one in some), face=sum(one.face for one in some))


def _face_value(summaries: Sequence[SliceSummary], *, is_freezing_decided: bool) -> str:
    """Write how many curves have a peak in the mean over seeds, along the frozen layers and the epochs.

    The frozen layers are left out if a verdict decides them.
    """
    freezing, epochs = freezing_count(summaries), epoch_counts(summaries)
    wheres = {"the epochs": epochs}
    if not is_freezing_decided:
        wheres = {"the frozen layers": {"": freezing}, **wheres}
    parts: list[str] = []
    for where, counts in wheres.items():
        told = [
            f"{count.face or 'none'} of {count.could} {'' if parts else 'curves '}{name}".strip()
            for name, count in counts.items()
            if count.could
        ]
        if told:
            parts.append(f"over {where} {' and '.join(told)}")
    if not parts and freezing.could:
        return ""
    if not parts:
        return "no curve crosses the edge of interpolation, so none could show a second descent"
    parts[0] += " peak near the edge of interpolation"
    return f"at face value, {', '.join(parts)}"


def _decided(one: Verdict) -> str:
    holds = one.answer == HOLDS
    if one.claim in WORDS:
        return f"{WORDS[one.claim][0 if holds else 1]} ({one.claim})"
    return f"{one.claim} {one.answer}"


def _diverged(study: Study) -> str:
    cells = study.cells[study.cells["arm"] != SOURCE]
    cells = cells if len(cells) else study.cells
    num = int((cells["state"] == DIVERGED).sum())
    return f"{num:,} of {len(cells):,} Runs diverged" if num else ""


def _undecided(study: Study, verdicts: Sequence[Verdict], decided: Sequence[Verdict]) -> str:
    cells = study.runs[study.runs["arm"] != SOURCE]
    num_seeds = (cells if len(cells) else study.runs)["seed"].nunique()
    seeds = f"{_NUMBERS[num_seeds] if num_seeds < len(_NUMBERS) else num_seeds} seed"
    seeds += "s" if num_seeds != 1 else ""
    if not verdicts:
        return "no claim was judged"
    if not decided:
        return f"with {seeds} nothing is decided"
    left = [one.claim for one in verdicts if one not in decided]
    return f"{seeds} cannot tell {', '.join(left)}" if left else ""
