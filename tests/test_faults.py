"""The short form of `python -m tests.faults`, and tests of the harness."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.faults import catalogue, damage, journal, signals
from tests.faults.harness import Harness, Outcome, Skipped, open_harness
from tests.faults.journal import Event
from tests.faults.mutations import MUTATIONS

# Without most faults that need Ray or minutes; two of the faults happen less often.
_NAMES: Final = (
    *("kill-after-source", "signal-inline", "signal-twice", "signal-ray"),
    *("disk-full", "disk-file-limit"),
    *("damaged-rows", "damaged-weights", "damaged-predictions", "damaged-checkpoint"),
    *("damaged-study-file", "damaged-task", "sealed-nonsense", "compacting-killed"),
    *("lease-last-number", "case-folding", "two-drivers"),
    *("stack-killed", "stack-extended", "stack-one-lost", "stack-one-diverges"),
    *("power-loss", "io-call-fails", "bucket-errors", "bucket-slow"),
)
SHORT: Final[Mapping[str, catalogue.Cause]] = {
    "kill-random": partial(signals.at_random_steps, times=2),
    "kill-publishing": partial(signals.while_publishing, num_instants=1),
    **{name: catalogue.FAULTS[name].cause for name in _NAMES},
}
MARKS: Final = {
    "signal-ray": pytest.mark.ray,
    **dict.fromkeys(("bucket-errors", "bucket-slow"), pytest.mark.s3),
}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in SHORT])
def test_faults_no_result_is_lost_or_made_twice(name: str, harness: Harness) -> None:
    try:
        outcome = SHORT[name](harness, random.Random(name))
    except Skipped as skipped:
        pytest.skip(str(skipped))
    assert not outcome.problems, "\n".join(outcome.problems)
    assert outcome.bit_equal
    assert (outcome.rows_lost, outcome.rows_doubled, outcome.sources_twice) == (0, 0, 0)
    assert outcome.num_runs > 0


@pytest.mark.slow
def test_judge_finished_study_has_no_problems_until_it_is_damaged(harness: Harness) -> None:
    scenario = harness.scenario()
    assert scenario.run().wait() == 0
    assert scenario.judge() == Outcome(times=1, num_runs=len(scenario.runs))
    (source,) = scenario.sources
    cell, other, *_ = scenario.cells
    rows = Path(scenario.root) / "rows"
    with scenario.journal.path.open("a") as stream:  # the source is trained again
        stream.write(f"9e9 1 begin {source} 0\n9e9 1 step {source} 1\n")
    (rows / f"{cell}.arrow").unlink()
    torn = rows / f"{other}.arrow"
    torn.write_bytes(torn.read_bytes().replace(b"digits-low", b"digits-lox"))
    (rows / ".here~1~00000000~x.tmp").touch()
    scenario.store.put(f"unfinished/{cell}/checkpoint", b"left")
    outcome = scenario.judge()
    assert not outcome.bit_equal
    assert outcome.rows_lost > 0
    assert outcome.sources_twice == 1
    said = "\n".join(outcome.problems)
    for word in (cell, other, "temporary files are left", "left in unfinished/"):
        assert word in said
    assert "NO" in catalogue.rendered([outcome])


def _events(*lines: str) -> list[Event]:
    fields = [line.split() for line in lines]
    return [Event(float(at), int(pid), kind, run, int(step)) for at, pid, kind, run, step in fields]


def test_journal_finds_training_that_was_repeated() -> None:
    killed = ("1 7 begin r 0", "2 7 step r 1", "3 7 save r 1", "4 7 saved r -1", "5 7 step r 2")
    resumed = journal.tries(_events(*killed, "6 7 step r 3", "9 8 begin r 1", "10 8 step r 2"))
    assert not journal.trained_twice(resumed), "it continued from its last checkpoint"
    assert journal.redone_seconds(resumed) == 6 - 5, "from the 2nd to the 5th second it waited"
    quick = ("0 7 begin r 0", *(f"{n / 4} 7 step r {n}" for n in range(1, 9)))
    resumed = journal.tries(_events(*quick, "9 8 begin r 3", "10 8 step r 4"))
    assert journal.redone_seconds(resumed) == (8 - 3) / 4
    from_scratch = journal.tries(_events(*killed, "9 8 begin r 0"))
    assert journal.trained_twice(from_scratch) == {"r"}
    at_once = journal.tries(_events(*killed, "4.5 8 begin r 1", "5.5 7 step r 3"))
    assert journal.at_the_same_time(at_once) == {"r"}
    finished = journal.tries(_events(*killed, "6 7 published r -1", "9 8 begin r 1"))
    assert journal.trained_twice(finished) == {"r"}


def test_journal_finds_checkpoints_that_were_due_and_not_begun() -> None:
    steps = [f"{second} 7 step r {second}" for second in range(1, 20)]
    begun = _events("0 7 begin r 0", *steps)
    assert journal.late_checkpoints(journal.tries(begun), interval_seconds=100.0) == {}
    assert journal.late_checkpoints(journal.tries(begun), interval_seconds=8.0) == {"r": 7}
    saved = _events("8.5 7 save r 8", "8.6 7 saved r -1")
    with_one = sorted([*begun, *saved], key=lambda event: event.at)
    assert journal.late_checkpoints(journal.tries(with_one), interval_seconds=8.0) == {}
    slow = sorted([*begun, saved[0]], key=lambda event: event.at)  # not yet on the disk
    assert journal.late_checkpoints(journal.tries(slow), interval_seconds=8.0) == {}


def test_every_damage_changes_something() -> None:
    for seed in range(50):
        for kind in damage.DAMAGES.values():
            assert kind(b"\0some\0bytes\0", random.Random(seed)) != b"\0some\0bytes\0"


def test_mutations_name_existing_faults() -> None:
    for mutation in MUTATIONS.values():
        assert mutation.faults
        assert set(mutation.faults) <= catalogue.FAULTS.keys()


def test_tables_merge_rounds_and_show_missed_mutations() -> None:
    rounds = [
        Outcome(fault="a", times=2, num_runs=5, resume_seconds=(1.0, 3.0), redone_seconds=0.5),
        Outcome(fault="b", times=0, skipped="no root"),
        Outcome(fault="a", times=1, num_runs=5, rows_lost=7, bit_equal=False, problems=("x",)),
    ]
    a, b = catalogue.merged(rounds)
    assert (a.times, a.num_runs, a.rows_lost, a.bit_equal) == (3, 10, 7, False)
    assert (a.resume_seconds, a.redone_seconds, a.problems) == ((1.0, 3.0), 0.5, ("x",))
    text = catalogue.rendered([a, b])
    assert "skipped: no root" in text
    assert "2.0, 3.0" in text
    for fault, problems, is_missed in (
        ("power-loss", (), True),
        ("kill-random", (), False),
        ("power-loss", ("x",), False),
        ("power-loss", ("Traceback (most recent call last):\n…\nIndexError: x",), True),
        ("power-loss", ("Traceback (most recent call last):\n…\nHung: x",), False),
    ):
        noticed = catalogue.Noticed("no-fsync", Outcome(fault=fault, times=1, problems=problems))
        assert noticed.is_missed == is_missed
        assert ("NO" in catalogue.of_mutations([noticed])) == is_missed
