"""Write the report of a study: one self-contained HTML page, tables and figures.

The page must not contain a date: equal rows give equal bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import load
from analysis.claims import claims
from analysis.claims.registration import registration_status
from analysis.claims.verdicts import Verdicts, condition_text, effect_text, epsilons_text
from analysis.descent import EPSILON
from analysis.load import Incomplete, Study, output
from analysis.load.arms import DEFAULT_ARM
from analysis.load.export import is_export, kept_path
from analysis.report import gallery, overview, slices, tables
from analysis.report.answer import TERMS, first_screen
from analysis.report.lead import lead
from analysis.report.picture import Picture
from analysis.report.slices import summarise_slices
from study.messages import show_message
from study.run import Run
from study.store import Damaged, open_store, study_names
from study.store.errors import os_error_text

PAGE: Final = "index.html"
MAX_SVG_BYTES: Final = 1_000_000
MAX_EMBEDDED: Final = 400_000  # bytes; larger tables are linked
MAX_PICTURES: Final = 40
MAX_LISTED: Final = 100


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A picture in the page.

    Args:
        source: a data URI.
        width, height: in CSS pixels.
        hover: the tooltips, escaped for an attribute between single quotes.
    """

    picture: Picture
    source: str
    width: int
    height: int
    hover: Markup


def write_report(
    study: Study,
    directory: str | Path,
    *,
    question: str = "",
    epsilon: float = EPSILON,
    more_related: str | None = None,
    less_related: str | None = None,
    arm: str = DEFAULT_ARM,
    partial: bool = False,
) -> Path:
    """Write the report of a study into `directory` (made if needed); return its index.html.

    Also writes figures/ (PNG, SVG, PDF) and tables/ (CSV).

    Args:
        question: the study's question, formatted like a docstring.
        epsilon: a Run interpolates if its train error is at most epsilon.
        more_related, less_related: source tasks, for the claims that compare two of them.
        arm: one of `arms.ARMS`; the claims are judged on it.
        partial: show wanted Runs without rows as absent cells; the page starts with a warning.

    Raises:
        load.Incomplete: wanted Runs have no rows, and `partial` is False.
        ValueError: the study has no such source task.
    """
    related = {"more_related": more_related, "less_related": less_related}
    return _write(study, directory, question, epsilon, related, arm, partial)[0]


def _write(
    study: Study,
    directory: str | Path,
    question: str,
    epsilon: float,
    related: Mapping[str, Any],
    arm: str,
    partial: bool,
) -> tuple[Path, str]:
    """Do what `write_report` does; also return the answer and the verdicts as text."""
    _check_sources(study, *related.values())
    if not partial:
        load.require_rows(study, study.cells)
    with output.folder(Path(directory), last=PAGE) as place:
        text = _draw(study, place, question, epsilon, related, arm)
    return Path(directory) / PAGE, text


def _draw(
    study: Study,
    place: Path,
    question: str,
    epsilon: float,
    related: Mapping[str, Any],
    arm: str,
) -> str:
    for folder in ("figures", "tables"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    errors = tables.final_errors(study, epsilon)
    output.write_csv(errors, place / "tables" / "final_errors.csv")
    output.write_csv(study.cells.reset_index(), place / "tables" / "runs.csv")
    parts = slices.slices(study)
    predicted = tables.disagreements(study, parts)
    if predicted.found:
        table = tables.disagreement_table(predicted, parts)
        output.write_csv(table, place / "tables" / "predictions.csv")
    summaries = summarise_slices(study, parts, epsilon)
    best = tables.best_cuts(summaries)
    output.write_csv(best, place / "tables" / "best_cuts.csv")
    first = lead(study, summaries, place / "figures", epsilon)
    pictures = list(
        gallery.pictures(
            study,
            summaries,
            place / "figures",
            epsilon=epsilon,
            disagreements=predicted,
            mapped=first.mapped if first else (),
            drawn=first.drawn if first else (),
        )
    )
    leading = first.picture if first else pictures.pop(0) if pictures else None
    judged, unjudged = _judged(study, epsilon, related, arm)
    registration = registration_status(study, epsilon=epsilon, **related)
    output.write_csv(judged.to_dataframe(), place / "tables" / "verdicts.csv")
    answer = first_screen(study, summaries, list(judged.values()))
    page = _template().render(
        study=study,
        answer=answer,
        terms=TERMS,
        leading=_shown(leading) if leading else None,
        surface=_shown(first.surface) if first and first.surface else None,
        curves=first.curves if first else "",
        files=_tables(place),
        verdicts=list(judged.values()),
        unjudged=unjudged,
        registration=registration,
        effect=effect_text,
        condition=condition_text,
        epsilons=epsilons_text,
        question=overview.paragraphs(question),
        warnings=overview.warnings(study),
        facts=overview.facts(study),
        groups=[
            (group, [_shown(picture) for picture in some])
            for group, some in groupby(pictures[:MAX_PICTURES], lambda picture: picture.group)
        ],
        more_pictures=[_links(picture, place) for picture in pictures[MAX_PICTURES:]],
        predicted=predicted,
        errors=[(part.title, _html(tables.by_frozen(errors, part))) for part in parts],
        cuts=[
            (title, _html(tables.best_cuts_by_size(some)))
            for title, some in best.groupby("slice", sort=False)
        ],
        epsilon=f"{epsilon:g}",
        coverage=_html(tables.coverage(study)),
        not_done=overview.not_done(study),
        max_listed=MAX_LISTED,
        provenance=tables.provenance(study),
        style=_beside("report.css"),
        script=_beside("report.js"),
    )
    (place / PAGE).write_text(page, encoding="utf-8")
    text = str(judged) or f"The claims were not judged: {unjudged}"
    return f"{answer}\n{text}\n{registration.word}: {' '.join(registration.sentences)}"


def make_report(
    root: str | Path,
    study: str | None = None,
    *,
    out: str | Path | None = None,
    partial: bool = False,
    question: str = "",
    more_related: str | None = None,
    less_related: str | None = None,
    runs: Sequence[Run] | None = None,
) -> int:
    """Write a report; print its answer, its verdicts and, as the last line, the path of the page.

    If the store lacks the study, bundled results are used, with a message.

    Args:
        root: a store, or a file from `study export`.
        study: its name; required if the store has several.
        out: the directory; default reports/<study>.
        runs: the wanted Runs, as for `load.open_study`.
        partial, question, more_related, less_related: see `write_report`.

    Returns:
        The exit status: 0 written, 1 the study is incomplete, 2 wrong input (explained on stderr).

    Raises:
        OSError: the store cannot be read, or the report cannot be written.
    """
    try:
        place = _kept_instead(root, study) or root
        opened = load.open_study(place, study, partial=partial, runs=runs)
        _check_sources(opened, more_related, less_related)
    except Incomplete as incomplete:
        show_message(f"{incomplete.what}; --partial writes the report from what is there")
        return 1
    except FileNotFoundError as absent:
        show_message(os_error_text(absent))
        return 2
    except (ValueError, Damaged) as wrong:
        show_message(str(wrong))
        return 2
    related = {"more_related": more_related, "less_related": less_related}
    directory = out or Path("reports") / opened.name
    page, text = _write(opened, directory, question, EPSILON, related, DEFAULT_ARM, partial)
    print(text)
    print(page)
    return 0


def _kept_instead(root: str | Path, study: str | None) -> Path | None:
    """Return the path of the study's bundled export if the store has no rows of the study; else None."""
    path = None if study is None else kept_path(study)
    if path is None or is_export(root) or study in study_names(open_store(root)):
        return None
    show_message(f"{root} has no study {study}: this report is on the bundled results, {path}")
    return path


def _check_sources(study: Study, *names: str | None) -> None:
    there = sorted(set(study.cells["source_task"]) - {"none"})
    for name in names:
        if name is not None and name not in there:
            choices = ", ".join(there) or "none, no Run of this study has a source"
            raise ValueError(f"source task {name!r}: choose from {choices}")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html")


def _judged(
    study: Study, epsilon: float, related: Mapping[str, Any], arm: str
) -> tuple[Verdicts, str]:
    """Return the verdicts, and a sentence if the claims cannot be judged, else ""."""
    try:
        return claims(study, epsilon=epsilon, arm=arm, **related), ""
    except ValueError as refused:
        return Verdicts(()), str(refused)


def _shown(picture: Picture) -> _Shown:
    svg = picture.files["svg"].read_bytes()
    # SVG is sharp at every width; for grids of very many points, PNG is smaller.
    small = len(svg) <= MAX_SVG_BYTES
    width, height = picture.inches
    return _Shown(
        picture=picture,
        source=_data("image/svg+xml", svg)
        if small
        else _data("image/png", picture.files["png"].read_bytes()),
        width=round(96 * width),
        height=round(96 * height),
        # Autoescaping would replace each of the many quotes in the JSON by five characters.
        hover=Markup(
            picture.hover.replace("&", "&amp;").replace("'", "&#39;").replace("<", "&lt;")
        ),
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _tables(place: Path) -> dict[str, str]:
    """Return a link for each table: a data URI if the table is small, else the path of its file."""
    found = {}
    for path in sorted((place / "tables").glob("*.csv")):
        small = path.stat().st_size <= MAX_EMBEDDED
        name = path.relative_to(place).as_posix()
        found[path.stem] = _data("text/csv", path.read_bytes()) if small else name
    return found


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _links(picture: Picture, place: Path) -> dict[str, Any]:
    links = {form: path.relative_to(place).as_posix() for form, path in picture.files.items()}
    return {"group": picture.group, "heading": picture.heading, "links": links}


def _html(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table as a dict for the template: names of the index, names of the columns, and lines."""
    names = [str(name or "") for name in table.index.names]
    lines = []
    for key, values in zip(table.index, table.itertuples(index=False, name=None), strict=True):
        heads = key if isinstance(key, tuple) else (key,)
        lines.append(([_text(head) for head in heads], [_text(value) for value in values]))
    return {
        "index": names,
        "over": str(table.columns.name or ""),
        "columns": [_text(column) for column in table.columns],
        "lines": lines,
    }


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
