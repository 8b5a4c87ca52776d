"""The long form: `python -m tests.faults --rounds 50`.

Every round causes every fault once (those that take long in some rounds only: `catalogue`), at other
moments each time; `--seed` gives them again, as far as a machine's pace allows. What was not as promised
is told at once, on stderr, and makes the exit status 1; at the end, one table.

`--mutations` asks the harness itself: the code is broken on purpose, in one way after another, and each
must be noticed by the faults that are there for it. One that is not makes the exit status 1.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.faults import catalogue as table
from tests.faults import drivers
from tests.faults.catalogue import FAULTS
from tests.faults.harness import Harness, Outcome, Skipped, open_harness
from tests.faults.mutations import MUTATIONS


def main() -> int:
    given = _arguments()
    names = [
        n for n in FAULTS if re.search(given.only, n) and (given.only or not FAULTS[n].is_asked_for)
    ]
    if given.list or not names:
        print("\n".join(FAULTS))
        return 0 if names else 2
    if given.mutations is not None and not any(re.search(given.mutations, m) for m in MUTATIONS):
        print("\n".join(MUTATIONS))
        return 2
    # A shell starts background jobs with SIGINT ignored, and drivers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    drivers.start_fork_server()
    if given.mutations is not None:
        return _mutate(given)
    outcomes: list[Outcome] = []
    try:
        with open_harness(given.folder) as harness:
            for number in range(given.rounds):
                for name in names:
                    if FAULTS[name].is_in(number):
                        outcomes.append(_met(name, number, given.seed, harness, given.limit))
    except KeyboardInterrupt:
        print("\nended early: what follows is of the rounds so far", file=sys.stderr)
    finally:
        drivers.stop_fork_server()
    found = table.merged(outcomes)
    print(table.rendered(found))
    return 1 if any(outcome.problems for outcome in found) else 0


def _mutate(given: argparse.Namespace) -> int:
    """Breaks the code in each way, and returns whether a fault failed to notice what it is there for."""
    noticed: list[table.Noticed] = []
    try:
        with open_harness(given.folder) as harness:
            for mutation in MUTATIONS.values():
                if not re.search(given.mutations, mutation.name):
                    continue
                faults = list(FAULTS) if given.all else list(mutation.noticed_by)
                for name in (n for n in faults if re.search(given.only, n)):
                    with harness.mutated(mutation.name):
                        print(f"{mutation.name}: {mutation.breaks}", file=sys.stderr, flush=True)
                        outcome = _met(name, 0, given.seed, harness, given.limit)
                    noticed.append(table.Noticed(mutation, name, outcome))
    except KeyboardInterrupt:
        print("\nended early: what follows is of the mutations so far", file=sys.stderr)
    finally:
        drivers.stop_fork_server()
    print(table.of_mutations(noticed))
    return 1 if any(each.is_missed for each in noticed) else 0


def _take_too_long(*_: object) -> None:
    raise drivers.Hung("the time limit of one fault is over (--limit)")


def _met(name: str, number: int, seed: int, harness: Harness, limit: int) -> Outcome:
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _take_too_long)
    signal.alarm(limit)
    try:
        outcome = FAULTS[name].cause(harness, random.Random(f"{seed} {number} {name}"))
    except Skipped as skipped:
        outcome = Outcome(fault=name, times=0, skipped=str(skipped))
    except Exception:  # of the fault's own code, or Hung: told as a problem, and the rounds go on
        drivers.end_processes_of(harness.folder)  # before the next fault begins
        told = (traceback.format_exc(),)
        outcome = Outcome(fault=name, times=1, bit_equal=False, problems=told)
    finally:
        signal.alarm(0)
    verdict = "NOT AS PROMISED" if outcome.problems else "ok"
    if outcome.skipped is not None:
        verdict = "skipped"
    seconds = time.monotonic() - began
    lines = [f"round {number + 1}: {name}: {verdict}, {seconds:.0f} s", *outcome.problems]
    print("\n".join(lines), file=sys.stderr, flush=True)
    return outcome


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Studies under real faults, bit for bit."
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often (default 1)")
    parser.add_argument("--only", default="", metavar="REGEX", help="faults whose name fits")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--limit", type=int, default=1800, help="seconds a fault (default 1800)")
    parser.add_argument("--folder", type=Path, help="where stores are made (default: temporary)")
    parser.add_argument("--list", action="store_true", help="the names of all faults")
    parser.add_argument(
        "--mutations",
        nargs="?",
        const="",
        metavar="REGEX",
        help="break the code on purpose in each of these ways, and show which faults notice",
    )
    parser.add_argument(
        "--all", action="store_true", help="with --mutations: under every fault, not only its own"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
