"""The long form: `python -m tests.faults --rounds 50`.

Each round causes every fault once, at random moments; slow faults are in some rounds only (`catalogue`).
Problems are printed to stderr at once and make the exit status 1; at the end comes one table.

`--mutations` tests the faults: it breaks the code on purpose, in one way after another. The exit status
is 1 if a fault misses a mutation that it must notice.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.faults import catalogue, drivers
from tests.faults.catalogue import FAULTS
from tests.faults.harness import Harness, Outcome, Skipped, open_harness
from tests.faults.mutations import MUTATIONS


def main() -> int:
    given = _arguments()
    names = [n for n in FAULTS if re.search(given.only, n) and (given.only or FAULTS[n].one_in)]
    wanted = [m for m in MUTATIONS if re.search(given.mutations or "", m)]
    if given.list or not names:
        print("\n".join(FAULTS))
        return 0 if names else 2
    if not wanted:
        print("\n".join(MUTATIONS))
        return 2
    # A shell starts background jobs with SIGINT ignored, and drivers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if given.mutations is None:
        return _rounds(given, names)
    return _mutations(given, names, wanted)


def _rounds(given: argparse.Namespace, names: list[str]) -> int:
    outcomes: list[Outcome] = []
    with _until_interrupted(), open_harness(given.folder) as harness:
        for number in range(given.rounds):
            for name in names:
                if FAULTS[name].is_in(number) or (given.only and not FAULTS[name].one_in):
                    outcomes.append(_caused(name, number, harness, given))
    found = catalogue.merged(outcomes)
    print(catalogue.rendered(found))
    return 1 if any(outcome.problems for outcome in found) else 0


def _mutations(given: argparse.Namespace, names: list[str], wanted: list[str]) -> int:
    noticed: list[catalogue.Noticed] = []
    with _until_interrupted(), open_harness(given.folder) as harness:
        for mutation in wanted:
            for name in names if given.all else MUTATIONS[mutation].faults:
                if name in names:
                    print(f"{mutation}:", end=" ", file=sys.stderr, flush=True)
                    with harness.mutated(mutation):
                        outcome = _caused(name, 0, harness, given)
                    noticed.append(catalogue.Noticed(mutation, outcome))
    print(catalogue.of_mutations(noticed))
    return 1 if any(each.is_missed for each in noticed) else 0


@contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted: the table has the faults until now", file=sys.stderr)


def _caused(name: str, number: int, harness: Harness, given: argparse.Namespace) -> Outcome:
    """Cause a fault in a round; print and return its outcome."""

    def take_too_long(*_: object) -> None:
        raise drivers.Hung(f"--limit={given.limit}: the fault takes longer")

    began = time.monotonic()
    signal.signal(signal.SIGALRM, take_too_long)
    signal.alarm(given.limit)
    try:
        outcome = FAULTS[name].cause(harness, random.Random(f"{given.seed} {number} {name}"))
    except Skipped as skipped:
        outcome = Outcome(times=0, skipped=str(skipped))
    except Exception:  # an error of the fault itself, or Hung: a problem, and the rounds go on
        drivers.end_processes_of(harness.folder)
        outcome = Outcome(times=1, bit_equal=False, problems=(traceback.format_exc(),))
    finally:
        signal.alarm(0)
    verdict = "NOT AS PROMISED" if outcome.problems else "skipped" if outcome.skipped else "ok"
    seconds = f"{time.monotonic() - began:.0f} s"
    lines = [f"round {number + 1}: {name}: {verdict}, {seconds}", *outcome.problems]
    print("\n".join(lines), file=sys.stderr, flush=True)
    return replace(outcome, fault=name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Studies under real faults, bit for bit."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=1, help="number of rounds (default 1)")
    add("--only", default="", metavar="REGEX", help="only faults whose name matches")
    add("--seed", type=int, default=0, help="of the random moments (default 0)")
    add("--limit", type=int, default=1800, help="seconds for one fault (default 1800)")
    add("--folder", type=Path, help="folder of the stores (default: temporary)")
    add("--list", action="store_true", help="print the names of all faults")
    add("--mutations", nargs="?", const="", metavar="REGEX", help="break the code in these ways")
    add("--all", action="store_true", help="cause every fault under each mutation")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
