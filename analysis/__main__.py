"""`python -m analysis report SPACE`, `export SPACE FILE`, `publish SPACE DIR`, `seeds SPACE`: no torch.

Owns the flags and their help, those of `study report`, `export` and `publish`, which have the same done
by a request and say the same. Does nothing itself: `report.make_report`, `load.export` and
`report.publish` do the work. Runs no search-space file: what a study asks and which sources it compares
is given by flags.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from study.messages import UserError, did_you_mean, show_message
from study.store import Damaged, Newer
from study.store.errors import os_error_text
from study.store.layout import is_study_name
from study.store.store import default_root, without_secrets

VERBS: Final = ("report", "export", "publish", "seeds")


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the words ask for (default: those of the command line); returns the exit status.

    0 done, 1 the study is incomplete, or what it needs could not be read or written, 2 wrong input. The
    one word "--request" stands for a JSON object on standard input: "verb", and the keyword arguments of
    what it calls. So `study` asks.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given == ["--request"]:
        request = json.load(sys.stdin)
        return _done(_ACTS[request.pop("verb")], request)
    if given and not given[0].startswith("-") and given[0] not in VERBS:
        near = did_you_mean(given[0], VERBS)
        show_message(f"VERB={given[0]}: choose one of {', '.join(VERBS)}{near}")
        return 2
    try:
        chosen = vars(parser().parse_args(given))
    except SystemExit as ended:  # argparse has printed help, or what is wrong
        return int(ended.code or 0)
    return _done(_ACTS[chosen.pop("verb")], chosen)


def parser() -> argparse.ArgumentParser:
    """The verbs and their flags."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Reads a study's store; trains nothing."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.add_argument(
            "space",
            metavar="SPACE",
            help="a study of the store, or a file that `study export` made",
        )
        added.add_argument(
            "--root",
            default=default_root(),
            help="the store: a directory or a URI (STUDY_ROOT; default ./store)",
        )
        return added

    report = verb("report", "figures, tables, verdicts on the claims, one HTML page")
    report.add_argument("--partial", action="store_true", help="though Runs are missing")
    report.add_argument("--out", metavar="DIR", help="default: reports/<study>")
    report.add_argument("--question", help="what the study asks, shown at the top")
    seeds = verb("seeds", "how many seeds each claim needs, by the spread of a pilot's seeds")
    for each in (report, seeds):
        each.add_argument("--more-related", metavar="TASK", help="of two sources, for C5")
        each.add_argument("--less-related", metavar="TASK", help="of two sources, for C5")
    export = verb("export", "one file of all rows: Parquet, or CSV where FILE ends in .csv")
    export.add_argument("file", metavar="FILE")
    publish = verb("publish", "a folder that is a data set for the Hugging Face hub")
    publish.add_argument("dir", metavar="DIR", help="new, or empty")
    publish.add_argument("--question", help="what the study asks, said in the card")
    publish.add_argument("--licence", help="as the hub spells it; default: cc-by-4.0")
    return parser


def _done(act: Callable[..., int], request: dict[str, Any]) -> int:
    """What a disk refuses, and what is damaged, is said in one line; a bug of ours has its traceback."""
    try:
        return act(**request)
    except (UserError, Newer) as wrong:
        show_message(str(wrong))
        return 2
    except Damaged as damaged:
        show_message(str(damaged))
    except OSError as error:
        show_message(without_secrets(os_error_text(error)))
    return 1


def _place(space: str, root: str) -> tuple[str, str | None]:
    """Return root and study for `load.open_study`; `space` is a study's name or an export's path.

    A name that the store or the package has is that study, even if a file or a directory in the
    working directory has the same name (`./NAME` is then the file). Raises UserError.
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


def _report(space: str, root: str, question: str | None = None, **request: Any) -> int:
    from analysis.report import make_report

    root, study = _place(space, root)
    return make_report(root, study, question=question or "", **request)


def _terms(
    more_related: str | None = None,
    less_related: str | None = None,
    registered: str | None = None,
) -> int:
    """Print the terms to register, as JSON; the terms `registered` (JSON) if nothing has changed since."""
    from analysis.claims.registration import changed_terms, terms_now

    terms = terms_now(more_related=more_related, less_related=less_related)
    before = None if registered is None else json.loads(registered)
    unchanged = before is not None and not changed_terms(before, terms)
    print(json.dumps(before if unchanged else terms))
    return 0


def _seeds(
    space: str,
    root: str,
    more_related: str | None = None,
    less_related: str | None = None,
) -> int:
    from analysis import load
    from analysis.claims import claims
    from analysis.claims.sample_size import needs, needs_text

    root, study = _place(space, root)
    try:
        pilot = load.open_study(root, study, partial=True)
        judged = claims(pilot, more_related=more_related, less_related=less_related)
    except ValueError as wrong:
        raise UserError(str(wrong)) from wrong
    print(needs_text(needs(judged.values())))
    return 0


def _export(space: str, root: str, file: str) -> int:
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
    return 0


def _publish(
    space: str,
    root: str,
    dir: str,
    question: str | None = None,
    space_text: str | None = None,
    licence: str | None = None,
) -> int:
    from analysis.load.study import named_study
    from analysis.report.dataset_card import CARD, LICENCE, publish
    from study.store import open_store

    root, study = _place(space, root)
    if study is None:
        raise UserError(f"SPACE={space}: give a study of the store, not an export of it")
    licence = licence or LICENCE
    try:
        store = open_store(root)
        written = publish(
            store,
            named_study(study, store),
            Path(dir),
            question=question or "",
            space=space_text or "",
            licence=licence,
        )
    except ValueError as wrong:
        raise UserError(str(wrong)) from wrong
    for remark in written.remarks:
        show_message(remark)
    print(f"{dir}: {written.num_rows:,} rows of {written.num_runs:,} Runs, licence {licence}")
    print(f"read {Path(dir) / CARD}, then: hf upload NAME {dir} --repo-type dataset")
    return 0


_ACTS: Final[dict[str, Callable[..., int]]] = {
    "report": _report,
    "export": _export,
    "publish": _publish,
    "seeds": _seeds,
    "terms": _terms,
}


if __name__ == "__main__":
    sys.exit(main())
