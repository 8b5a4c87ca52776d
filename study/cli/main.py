"""Parse the command line, complete it in a shell, and turn errors into exit statuses.

Must stay importable without torch and Ray."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from study.cli.arguments import SOME_FAILED, WRONG_INPUT, default_address, default_data
from study.cli.run import VERBS
from study.launching.options import LOGS, Means
from study.messages import UserError, did_you_mean
from study.planning.spaces import packaged
from study.requirements import is_required, missing_text
from study.store import Damaged, Newer, open_store, study_names
from study.store.errors import os_error_text
from study.store.provenance import code_version
from study.store.store import default_root, without_secrets
from study.tasks import BUILTIN


def complete(parser: argparse.ArgumentParser) -> None:
    """Ends the process with the completions where a shell asks for them; else does nothing.

    A shell asks once `eval "$(register-python-argcomplete study)"` has told it how.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def of_spaces(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Spaces that come along, files of Python here, studies of a store that is a directory."""
    return [*packaged(), *_files(), *_studies(parsed_args)]


def of_tasks(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """What `study prepare` takes."""
    return [*BUILTIN, *packaged(), *_files()]


def _files() -> Iterable[str]:
    return sorted(path.name for path in Path().glob("*.py"))


def _studies(parsed_args: argparse.Namespace) -> Iterable[str]:
    if "://" in parsed_args.root or not Path(parsed_args.root).is_dir():
        return ()
    return study_names(open_store(parsed_args.root))


_LAUNCH = "write files that start a study on Kubernetes, Slurm or a cloud, to be changed and kept"
_OUT = "of the report; default: reports/<study>, in a Ray job <root>/reports/<study>"


def main(argv: Sequence[str] | None = None) -> int:
    """Performs the verb in `argv`; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given and not given[0].startswith("-") and given[0] not in VERBS:
        near = did_you_mean(given[0], VERBS)
        return _refused(f"VERB={given[0]}: choose one of {', '.join(VERBS)}{near}", WRONG_INPUT)
    known = parser()
    complete(known)
    args = known.parse_args(given)
    args.command = without_secrets(shlex.join(["study", *given]), mark="…")
    try:
        return VERBS[args.verb](args)
    except UserError as error:
        return _refused(str(error), WRONG_INPUT)
    except Newer as newer:
        return _refused(str(newer), WRONG_INPUT)
    except ModuleNotFoundError as error:
        if not is_required(str(error.name)):
            raise  # a bug of ours
        return _refused(missing_text(str(error.name)), WRONG_INPUT)
    except (Damaged, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read the output has left; what is in the buffer must not be tried again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return SOME_FAILED
        text = os_error_text(error) if isinstance(error, OSError) else str(error)
        return _refused(without_secrets(text), SOME_FAILED)


def _refused(text: str, exit_status: int) -> int:
    for line in text.splitlines():
        print(f"study: {line}", file=sys.stderr)
    return exit_status


def parser() -> argparse.ArgumentParser:
    """The verbs and their flags."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--root",
        default=default_root(),
        help="the store: a directory or a URI (STUDY_ROOT; default ./store)",
    )
    common.add_argument(
        "--data",
        type=Path,
        default=default_data(),
        help="where image sets lie (STUDY_DATA; default ./data)",
    )
    parser = argparse.ArgumentParser(
        prog="study", description="Transfer learning seen through double descent."
    )
    parser.add_argument("--version", action="version", version=f"freezewise {code_version()}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, *positional: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, parents=[common])
        for each in positional:
            _completed(added.add_argument(each.lower(), metavar=each), each)
        return added

    verb("spaces", "the search spaces that come along: name, number of Runs, question")
    verb("new", "write a short search space, to be changed", "FILE")
    prepare = verb("prepare", "read or download tasks, verify them, decode them once")
    _completed(
        prepare.add_argument("tasks", metavar="TASK", nargs="+", help="a task, or a search space"),
        "TASK",
    )
    plan = verb(
        "plan", "what is wanted, there, wrong, and what it will cost; starts nothing", "SPACE"
    )
    plan.add_argument(
        "--address",
        type=_address,
        help="a Ray cluster to look at: how many Runs it holds (default where a claim is given: as run)",
    )
    _add_claim(plan)
    verb(
        "check", "train the first epochs of the cheapest and the dearest Run, keep nothing", "SPACE"
    )
    verb("register", "note by what a study will be judged, before its first row", "SPACE")
    run = verb("run", "train what is missing, then write the report", "SPACE")
    _add_means(run)
    status = verb("status", "how far a study is", "SPACE")
    status.add_argument(
        "--exit-code",
        action="store_true",
        help="end as `study run` would: 0 all done, 1 some failed, 3 some are left",
    )
    how = status.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="all of it, by Run")
    how.add_argument("--watch", action="store_true", help="again and again, until nothing is left")
    verb("show", "one Run: its fields, start, state, last row, files", "ID")
    verb("retry", "failed Runs are wanted again", "SPACE")
    verb("export", "one file of all rows: Parquet, or CSV where FILE ends in .csv", "SPACE", "FILE")
    publish = verb(
        "publish", "a folder that is a data set for the Hugging Face hub", "SPACE", "DIR"
    )
    publish.add_argument("--licence", help="as the hub spells it; default: cc-by-4.0")
    report = verb("report", "figures, tables, verdicts on the claims, one HTML page", "SPACE")
    report.add_argument("--partial", action="store_true", help="though Runs are missing")
    report.add_argument("--out", metavar="DIR", help=_OUT)
    report.add_argument("--question", help="what the study asks, shown at the top")
    report.add_argument("--more-related", metavar="TASK", help="of two sources, for C5")
    report.add_argument("--less-related", metavar="TASK", help="of two sources, for C5")
    verify = verb("verify", "every object is read and checked, what is damaged is named")
    _completed(verify.add_argument("space", metavar="SPACE", nargs="?"), "SPACE")
    verify.add_argument("--all", action="store_true", help="the whole store")
    verify.add_argument(
        "--repair", action="store_true", help="set it aside: the next `study run` makes it anew"
    )
    launch = verbs.add_parser("launch-files", help=_LAUNCH, description=_LAUNCH)
    launch.add_argument("dir", metavar="DIR", type=Path)
    verb("tidy", "remove weights and similarity that nothing needs, leftovers of killed drivers")
    return parser


def _completed(action: argparse.Action, metavar: str) -> None:
    """A shell completes this argument by the names that there are."""
    completer = {"SPACE": of_spaces, "TASK": of_tasks}.get(metavar)
    if completer is not None:
        action.completer = completer  # type: ignore[attr-defined]


def _add_means(run: argparse.ArgumentParser) -> None:
    run.add_argument("--out", metavar="DIR", help=_OUT)
    where = run.add_mutually_exclusive_group()
    where.add_argument(
        "--address",
        type=_address,
        default=default_address(),
        help="a Ray cluster to join: auto, or host:port (RAY_ADDRESS; default: this machine alone)",
    )
    run.add_argument(
        "--only",
        metavar="WHICH",
        help="a part: 'frozen=8,9,seed=0', with the starts that it needs; no report",
    )
    run.add_argument("--quiet", action="store_true", help="no progress, only what went wrong")
    where.add_argument("--inline", action="store_true", help="one Run after another, without Ray")
    run.add_argument(
        "--log",
        action="append",
        choices=LOGS,
        default=[],
        help="show Runs there while they train (again for another); files lie below logs/<study>",
    )
    run.add_argument(
        "--node-cache",
        type=_whole_path,
        metavar="DIR",
        help="of each node's own disk: prepared tasks are copied there once, and read from there",
    )
    _add_claim(run)
    run.add_argument("--max-concurrent", type=_count, metavar="N", help="Runs at the same time")
    run.add_argument(
        "--checkpoint-seconds",
        type=_positive,
        default=Means.checkpoint_seconds,
        metavar="S",
        help="between two checkpoints of a Run: what a crash can cost (default %(default)g)",
    )
    run.add_argument(
        "--grace-seconds",
        type=_positive,
        default=Means.grace_seconds,
        metavar="S",
        help="that Runs have for a checkpoint after Ctrl-C or SIGTERM (default %(default)g)",
    )


def _add_claim(verb: argparse.ArgumentParser) -> None:
    """What a trial claims of a cluster."""
    verb.add_argument(
        "--gpus-per-trial",
        type=_amount,
        metavar="N",
        help="0.25: four Runs a GPU; default 1 where there are GPUs, else 0",
    )
    verb.add_argument(
        "--accelerator", metavar="NAME", help="only on nodes that Ray labels so: H100, A100, L4"
    )
    verb.add_argument("--cpus-per-trial", type=_positive, metavar="N", help="default 1")


def _address(text: str) -> str:
    if text.startswith("ray://"):
        # Ray Client would take the driver away from its signals, its lease and its terminal.
        raise argparse.ArgumentTypeError(
            f"{text}: run this on a node of the cluster with --address auto, or as a Ray job"
        )
    return text


def _whole_path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise argparse.ArgumentTypeError(f"{text}: a trial has another folder; give a whole path")
    return path


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: choose a number above 0")
    return value


def _amount(text: str) -> float:
    value = _number(text)
    if not (0 <= value <= 1 or (value > 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text}: choose 0 to 1, or a whole number")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if value < 1 or not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text}: choose a whole number, 1 or more")
    return int(value)


def _number(text: str) -> float:
    """NaN where it is none: no comparison holds of it."""
    try:
        return float(text)
    except ValueError:
        return math.nan
