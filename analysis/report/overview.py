"""Summarise a study for its report: warnings, facts, and Runs that are not done."""

from __future__ import annotations

import inspect
import textwrap

import pandas as pd

from analysis.load import Study
from analysis.load.arms import SOURCE
from analysis.load.cells import list_cuts
from analysis.load.rows import StoreRows, TableRows
from analysis.report import slices
from study.run import describe
from study.store.prepared_tasks import repeated_text
from study.store.schema import DIVERGED, DONE


def warnings(study: Study) -> list[str]:
    """Return the warnings above the report's numbers, the most serious first."""
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
            "The curves come from a table, not from a store: how they were produced is not known."
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
    cells = slices.target_cells(study)
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
        "Cuts": list_cuts(cells),
        "Seeds": str(cells["seed"].nunique()),
        "Epochs": _listed(epochs) if epochs.nunique() < 6 else f"up to {epochs.max():,.0f}",
    }
    of = {
        "Target": "task",
        "Label noise": "label_noise",
        "Training images": "size",
        "Cuts": "frozen",
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
