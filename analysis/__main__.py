"""`python -m analysis report ROOT` and `export ROOT STUDY FILE`: what can be done where torch is absent.

Owns the flags and their help. Does nothing itself: `report.make_report` and `load.export` do the work,
and `study report` and `study export` have the same done by a request.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the words ask for (default: those of the command line); returns the exit status.

    0 done, 1 the study is incomplete, or what it needs could not be read or written, 2 wrong input. The
    one word "--request" stands for a JSON object on standard input: "verb", and the keyword arguments of
    what it calls. So `study` asks.
    """
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Reads a study's store; trains nothing."
    )
    verbs = parser.add_subparsers(metavar="report | export | seeds", required=True)
    report = verbs.add_parser(
        "report", description="Write the report of a study: one HTML page, figures and tables."
    )
    report.add_argument("root", metavar="ROOT", help="a store, or a file that `study export` made")
    report.add_argument("--study", metavar="NAME", help="needed where a store has several")
    report.add_argument("--partial", action="store_true", help="though Runs are missing")
    report.add_argument("--out", metavar="DIR", help="default: reports/<study>")
    report.add_argument("--more-related", metavar="TASK", help="of two sources, for C5")
    report.add_argument("--less-related", metavar="TASK", help="of two sources, for C5")
    report.add_argument("--question", default="", help="what the study asks, shown at the top")
    report.set_defaults(act=_report)
    seeds = verbs.add_parser(
        "seeds", description="How many seeds each claim needs, by the spread of a pilot's seeds."
    )
    seeds.add_argument("root", metavar="ROOT", help="a store, or a file that `study export` made")
    seeds.add_argument("study", metavar="STUDY", help="the pilot")
    seeds.add_argument("--more-related", metavar="TASK", help="of two sources, for C5")
    seeds.add_argument("--less-related", metavar="TASK", help="of two sources, for C5")
    seeds.set_defaults(act=_seeds)
    export = verbs.add_parser(
        "export", description="Write all rows of a study to one Parquet file."
    )
    export.add_argument("root", metavar="ROOT", help="a store: a directory or URI")
    export.add_argument("study", metavar="STUDY", help="its name in the store")
    export.add_argument("file", metavar="FILE", help="the Parquet file, on this machine")
    export.set_defaults(act=_export)
    given = list(sys.argv[1:] if argv is None else argv)
    if given == ["--request"]:
        request = json.load(sys.stdin)
        asked = request.pop("verb")
        verb_of: dict[str, Callable[..., int]] = {
            "report": _report,
            "export": _export,
            "terms": _terms,
            "seeds": _seeds,
        }
        return _done(verb_of[asked], request)
    try:
        chosen = vars(parser.parse_args(given))
    except SystemExit as ended:  # argparse has printed help, or what is wrong
        return int(ended.code or 0)
    return _done(chosen.pop("act"), chosen)


def _done(act: Callable[..., int], request: dict[str, Any]) -> int:
    """What a disk refuses, and what is damaged, is said in one line; a bug of ours has its traceback."""
    from study.store import Damaged, Newer

    try:
        return act(**request)
    except (Damaged, Newer, OSError) as error:
        print(f"{act.__name__.removeprefix('_')}: {error}", file=sys.stderr)
        return 2 if isinstance(error, Newer) else 1


def _report(**request: Any) -> int:
    from analysis.report import make_report

    return make_report(**request)


def _terms(more_related: str | None = None, less_related: str | None = None) -> int:
    from analysis.claims.registration import terms_now

    print(json.dumps(terms_now(more_related=more_related, less_related=less_related)))
    return 0


def _seeds(
    root: str,
    study: str,
    more_related: str | None = None,
    less_related: str | None = None,
) -> int:
    from analysis import load
    from analysis.claims import claims
    from analysis.claims.seeds import needs, needs_text

    try:
        pilot = load.open(root, study, partial=True)
        judged = claims(pilot, more_related=more_related, less_related=less_related)
    except (ValueError, FileNotFoundError) as wrong:
        print(f"seeds: {wrong}", file=sys.stderr)
        return 2
    print(needs_text(needs(judged)))
    return 0


def _export(root: str, study: str, file: str) -> int:
    from analysis.load.export import export
    from analysis.load.study import named_study
    from study.store import open_store

    try:
        store = open_store(root)
        written = export(store, named_study(study, store, root), file)
    except (ValueError, FileNotFoundError) as wrong:
        print(f"export: {wrong}", file=sys.stderr)
        return 2
    for remark in written.remarks:
        print(f"export: {remark}", file=sys.stderr)
    print(f"{file}: {written.num_rows:,} rows of {written.num_runs:,} Runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
