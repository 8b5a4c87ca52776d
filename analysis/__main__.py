"""The command `python -m analysis`; `study` runs it for its verbs of the same names.

Must stay importable without torch. It runs no search-space file: options give a study's question and
the sources that it compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from study.command_line import (
    OK,
    Licence,
    Out,
    Partial,
    Question,
    Related,
    Root,
    new_app,
    option,
    perform,
)
from study.messages import UserError, show_message
from study.store.layout import is_study_name
from study.store.store import without_secrets

app = new_app("Read a study's store; train nothing.", completion=False)

StudyName = Annotated[
    str, typer.Argument(metavar="SPACE", help="a study of the store, or an exported file")
]


def main(argv: Sequence[str] | None = None) -> int:
    """Perform the verb in `argv` (default: this process's arguments); return the exit status.

    0: done; 1: the study is incomplete, or something could not be read or written; 2: wrong input.
    """
    return perform(app, "python -m analysis", argv)


def _place(space: str, root: str) -> tuple[str, str | None]:
    """Return (root, study) for `load.open_study`; (path, None) if `space` is the path of an export.

    The name of a stored or bundled study takes precedence over a file or directory of that name
    (`./NAME` is then the file). Raises UserError.
    """
    from analysis.load.export import is_export

    if space.endswith(".py"):
        raise UserError(
            f"SPACE={space}: no search-space file is run here; give the study's name, {Path(space).stem}, "
            "or use `study`"
        )
    is_file, is_store = is_export(space), "://" in space or Path(space, "studies").is_dir()
    # The store is opened only if the name could mean two things: an export needs no store.
    if (is_file or is_store) and not space.endswith(".parquet") and _is_known(space, root):
        return root, space
    if is_file:
        return space, None
    if is_store:
        raise UserError(
            f"SPACE={without_secrets(space)}: give the study's name here, and the store by --root"
        )
    return root, space


def _is_known(study: str, root: str) -> bool:
    from analysis.load.export import kept_path
    from study.store import open_store, study_names

    if not is_study_name(study):
        return False
    try:
        names = study_names(open_store(root))
    except ValueError as wrong:
        raise UserError(str(wrong)) from wrong
    return study in names or kept_path(study) is not None


@app.command("report")
def _report(
    space: StudyName,
    root: Root,
    partial: Partial = False,
    out: Out = None,
    question: Question = None,
    more_related: Related = None,
    less_related: Related = None,
    runs: Annotated[
        Path | None, option("the study's Runs, if its search space changed since it ran", "FILE")
    ] = None,
) -> int:
    """Write figures, tables, verdicts on the claims: an HTML page."""
    from analysis.report import make_report
    from study.store.studies import runs_from

    root, study = _place(space, root)
    return make_report(
        root,
        study,
        partial=partial,
        out=out,
        question=question or "",
        more_related=more_related,
        less_related=less_related,
        runs=None if runs is None else runs_from(runs.read_bytes(), str(runs)),
    )


@app.command("terms")
def _terms(
    more_related: Related = None,
    less_related: Related = None,
    registered: Annotated[str | None, option("earlier terms, kept if unchanged", "JSON")] = None,
) -> int:
    """Print the terms by which a study is judged, as JSON."""
    from analysis.claims.registration import changed_terms, terms_now

    terms = terms_now(more_related=more_related, less_related=less_related)
    before = None if registered is None else json.loads(registered)
    unchanged = before is not None and not changed_terms(before, terms)
    print(json.dumps(before if unchanged else terms))
    return OK


@app.command("seeds")
def _seeds(
    space: StudyName, root: Root, more_related: Related = None, less_related: Related = None
) -> int:
    """Print how many seeds each claim needs, by a pilot's spread."""
    from analysis import load
    from analysis.claims import primary_answers
    from analysis.claims.sample_size import needs, needs_text

    root, study = _place(space, root)
    try:
        pilot = load.open_study(root, study, partial=True)
        answers = primary_answers(pilot, more_related=more_related, less_related=less_related)
    except ValueError as wrong:
        raise UserError(str(wrong)) from wrong
    print(needs_text(needs(answers)))
    return OK


@app.command("export")
def _export(space: StudyName, file: Annotated[str, typer.Argument()], root: Root) -> int:
    """Write all rows to one file: Parquet, or .csv."""
    from analysis.load.export import export
    from analysis.load.study import named_study
    from study.store import open_store

    root, study = _place(space, root)
    if study is None:
        raise UserError(f"SPACE={space}: it is an export already; give a study of the store")
    try:
        store = open_store(root)
        written = export(store, named_study(study, store), file)
    except ValueError as wrong:
        raise UserError(str(wrong)) from wrong
    for remark in written.remarks:
        show_message(remark)
    print(f"{file}: {written.num_rows:,} rows of {written.num_runs:,} Runs")
    return OK


@app.command("publish")
def _publish(
    space: StudyName,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="new, or empty")],
    root: Root,
    question: Question = None,
    space_file: Annotated[Path | None, option("search space to copy there", "FILE")] = None,
    licence: Licence = None,
) -> int:
    """Write a folder that is a data set for the Hugging Face hub."""
    from analysis.load.study import named_study
    from analysis.report.dataset_card import CARD, publish
    from study.store import open_store

    root, study = _place(space, root)
    if study is None:
        raise UserError(f"SPACE={space}: give a study of the store, not an export of it")
    if licence is None:
        raise UserError(
            "--licence: missing. Choose the licence of the data set, as the hub spells it"
        )
    try:
        store = open_store(root)
        written = publish(
            store,
            named_study(study, store),
            folder,
            question=question or "",
            space=space_file.read_text(encoding="utf-8") if space_file else "",
            licence=licence,
        )
    except ValueError as wrong:
        raise UserError(str(wrong)) from wrong
    for remark in written.remarks:
        show_message(remark)
    print(f"{folder}: {written.num_rows:,} rows of {written.num_runs:,} Runs, licence {licence}")
    print(f"read {folder / CARD}, then: hf upload NAME {folder} --repo-type dataset")
    return OK


if __name__ == "__main__":
    sys.exit(main())
