"""Write a study as a Hugging Face data set (Parquet files and a card), without uploading it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from analysis import load
from analysis.load import output
from analysis.load.export import Written, export
from analysis.load.study import lines_of, named_study
from analysis.report.tables import provenance
from study.store import Store
from study.store.studies import Registration, read_registrations

CARD: Final = "README.md"
ROWS: Final = "data/rows.parquet"
SPACE: Final = "space.py"
LICENCE: Final = "cc-by-4.0"
# The hub searches and sorts data sets by these tags.
TAGS: Final = ("transfer-learning", "double-descent", "learning-curves", "freezewise")
SIZES: Final = {
    1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M",
    10_000_000: "1M<n<10M", 100_000_000: "10M<n<100M", 1_000_000_000: "100M<n<1B",
}  # fmt: skip
ABOUT: Final = (
    "Learning curves of trainings that start from each other, measured by Freezewise: a network learns a "
    "source task, its first layers are frozen, the rest learns a target task, and the errors are recorded "
    "at every evaluation. One row is one evaluation of one training (*Run*). Errors are fractions, losses "
    "nats."
)
LISTED: Final = ("code version", "packages", "device")


def publish(
    store: Store,
    study: str | None,
    folder: Path,
    *,
    question: str = "",
    space: str = "",
    licence: str = LICENCE,
) -> Written:
    """Write a study into a folder, which must be empty or absent; the card is written last.

    Args:
        question: the study's question, for the card.
        space: text of the search-space file to include; "": none.
        licence: the hub's identifier of a licence.

    Raises:
        ValueError: the study is missing, or the folder is not empty.
        Also the errors of `export`.
    """
    name = named_study(study, store)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"DIR={folder}: something is there already; choose an empty or a new folder"
        )
    with output.folder(folder, last=CARD) as draft:
        rows = draft / ROWS
        rows.parent.mkdir(parents=True)
        written = export(store, name, rows, is_public=True)
        opened = load.open_study(rows, partial=True)
        if space:
            (draft / SPACE).write_text(without_folders(space), encoding="utf-8")
        text = card(
            opened,
            pq.read_schema(rows),
            read_registrations(store, name),
            num_rows=written.num_rows,
            question=question,
            has_space=bool(space),
            licence=licence,
        )
        (draft / CARD).write_text(text, encoding="utf-8")
    return written


# An absolute path in a string literal; the group is its last part.
_FOLDERS: Final = re.compile(r"""(?<=["'])(?:~?/|[A-Za-z]:[\\/])[^"'\n]*?([^"'/\\\n]*)(?=["'])""")


def without_folders(text: str) -> str:
    """Return the text with absolute paths in string literals reduced to their last part: "…/images"."""
    return _FOLDERS.sub(r"…/\1", text)


def card(
    study: load.Study,
    columns: pa.Schema,
    registrations: Sequence[Registration],
    *,
    num_rows: int,
    question: str,
    has_space: bool,
    licence: str,
) -> str:
    """Return the card: YAML, then Markdown. The metadata of `columns` contain units and meanings."""
    asked = question.strip().splitlines()
    about = "\n".join(
        f"- {word}: {text}" for word, text in lines_of(study.name, study.cells, study.coverage)
    )
    return (
        "\n\n".join(
            [
                _front(study.name, num_rows, licence),
                f"# {study.name}",
                *([" ".join(asked)] if asked else []),
                ABOUT,
                about,
                "## Use",
                _use(study.name),
                "## How it was made",
                _made(study, registrations, has_space),
                "## Columns",
                _columns(columns),
            ]
        )
        + "\n"
    )


def _front(name: str, num_rows: int, licence: str) -> str:
    size = next((size for most, size in SIZES.items() if num_rows < most), "n>1B")
    lines = [
        "---",
        f"pretty_name: {json.dumps(name, ensure_ascii=False)}",  # a JSON string is valid YAML
        f"license: {licence}",
        "task_categories:",
        "- image-classification",
        "size_categories:",
        f"- {size}",
        "tags:",
        *(f"- {tag}" for tag in TAGS),
        "configs:",
        "- config_name: rows",
        "  default: true",
        "  data_files:",
        "  - split: train",
        f"    path: {ROWS}",
        "---",
    ]
    return "\n".join(lines)


def _use(name: str) -> str:
    return (
        "```python\n"
        'rows = datasets.load_dataset("<this data set, or its folder>", split="train")\n'
        "```\n\n"
        "The split is called *train* because the hub requires a split: nothing is held out. "
        f"With Freezewise, the file `{ROWS}` is the whole study, with its Runs and provenance: "
        f'`analysis.load.open_study("{ROWS}")`, or `study report {ROWS}`.'
    )


def _made(study: load.Study, registrations: Sequence[Registration], has_space: bool) -> str:
    command = f"study run {SPACE if has_space else study.name}"
    lines = [
        f"- by `{command}`"
        + (
            f"; [`{SPACE}`]({SPACE}) is the search space (absolute paths in it are cut down to their "
            "last part)"
            if has_space
            else ""
        )
        + f"; {len(study.runs):,} of the {len(study.cells):,} Runs of its search space have rows"
    ]
    lines.append("- without host names, and without the messages of failed Runs")
    for kind, values in provenance(study).items():
        if kind in LISTED:
            lines.append(f"- {kind}: {_counted(values)}")
    if registrations:
        last = registrations[-1]
        late = (
            ", late: targets had rows by then"
            if last.is_late
            else ", before the first row of a target"
        )
        lines.append(f"- registered {last.registered_at} ({last.digest}){late}")
    else:
        lines.append("- not registered before its first row: exploratory")
    return "\n".join(lines)


def _counted(values: Mapping[str, int]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({count:,} Runs)" for value, count in values.items())


def _columns(columns: pa.Schema) -> str:
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in columns:
        notes = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        lines.append(
            f"| `{field.name}` | {kind} | {notes.get('unit', '')} | {notes.get('meaning', '')} |"
        )
    return "\n".join(lines)
