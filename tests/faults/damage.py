"""Torn, emptied and bit-flipped files of a store: named, set aside, made anew."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.ipc

from study.store import finished_ids
from tests.faults.harness import Harness, Outcome, Scenario
from tests.faults.journal import Journal

Damage = Callable[[bytes, random.Random], bytes]


def _torn(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def _emptied(content: bytes, rng: random.Random) -> bytes:
    return b""


def _flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit, where a flip changes anything: not in what pads a format, which no reader looks at."""
    places = [i for i, byte in enumerate(content) if byte] or [0]
    while True:
        changed = bytearray(content)
        changed[rng.choice(places)] ^= 1 << rng.randrange(8)
        if _as_read(bytes(changed)) != _as_read(content):
            return bytes(changed)


def _as_read(content: bytes) -> bytes:
    """All that a plain reader gets of an Arrow file, metadata included; else the bytes themselves."""
    if not content.startswith(b"ARROW1"):
        return content
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        table.validate(full=True)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return content
    return bytes(sink.getvalue())


def _misleading(content: bytes, rng: random.Random) -> bytes:
    """One bit, where all can be read as ever and something else is read: a checksum alone can tell."""
    while True:
        if content.startswith(b"ARROW1"):
            changed = _flipped(content, rng)
            if _is_other_values(changed, content):
                return changed
            continue
        # Of JSON: a digit of what follows the digest. Of tensors: a value of theirs.
        is_json = content.lstrip().startswith(b"{\n")
        where = rng.randrange(len(content) // 2, len(content))
        if not is_json:
            return (
                content[:where]
                + bytes([content[where] ^ 1 << rng.randrange(8)])
                + content[where + 1 :]
            )
        if chr(content[where]).isdigit():
            digit = str((int(chr(content[where])) + 1) % 10).encode()
            return content[:where] + digit + content[where + 1 :]


def _is_other_values(changed: bytes, content: bytes) -> bool:
    """Whether the columns of an Arrow file have other values, and the same names and types."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(changed)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return False
    before = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    return bool(table.schema.equals(before.schema) and not table.equals(before))


DAMAGES: Final[dict[str, Damage]] = {
    "torn": _torn,
    "emptied": _emptied,
    "bit-flipped": _flipped,
    "misleading": _misleading,
}


def rows(harness: Harness, rng: random.Random) -> Outcome:
    return _damaged(harness, rng, "rows", lambda scenario: _one("rows/*.arrow", scenario, rng))


def weights(harness: Harness, rng: random.Random) -> Outcome:
    return _damaged(harness, rng, "weights", lambda scenario: _one("weights/*", scenario, rng))


def predictions(harness: Harness, rng: random.Random) -> Outcome:
    def choose(scenario: Scenario) -> Path:
        # Of a finished Run: predictions are published before rows, and a Run that was killed between
        # the two is trained on, without reading them.
        done = sorted(finished_ids(scenario.store) - scenario.sources)
        return _one(f"predictions/{rng.choice(done)}-*", scenario, rng)

    return _damaged(harness, rng, "predictions", choose)


def checkpoint(harness: Harness, rng: random.Random) -> Outcome:
    return _damaged(
        harness,
        rng,
        "checkpoint",
        lambda scenario: _one("unfinished/*/*/checkpoint", scenario, rng),
    )


def study_file(harness: Harness, rng: random.Random) -> Outcome:
    return _damaged(
        harness, rng, "study file", lambda scenario: _one("studies/*.json", scenario, rng)
    )


def task(harness: Harness, rng: random.Random) -> Outcome:
    return _damaged(
        harness, rng, "prepared task", lambda scenario: _one("tasks/*.arrow", scenario, rng)
    )


def _damaged(
    harness: Harness, rng: random.Random, what: str, choose: Callable[[Scenario], Path]
) -> Outcome:
    """Of a study whose source and a cell are done and one of whose cells is under way.

    Twice, on two copies of it: in one of the ways that a reader of the format alone may notice, and in
    one that its checksum alone can tell.
    """
    kinds = [rng.choice(["torn", "emptied", "bit-flipped"]), "misleading"]
    first, last = (_damaged_so(harness, rng, what, choose, kind) for kind in kinds)
    return replace(last, times=2, problems=first.problems + last.problems)


def _damaged_so(
    harness: Harness,
    rng: random.Random,
    what: str,
    choose: Callable[[Scenario], Path],
    kind: str,
) -> Outcome:
    scenario = harness.scenario(like=_interrupted)
    root = Path(scenario.root)
    path = choose(scenario)
    shown = path.relative_to(root).as_posix()
    path.write_bytes(DAMAGES[kind](path.read_bytes(), rng))
    redone = {run_id for run_id in scenario.runs if run_id in shown}
    told = scenario.say("status")
    driver = scenario.finish()
    scenario.expect(shown in driver.said() + told, f"{kind} {shown}: not named: {driver.said()}")
    aside = list((root / "damaged" / shown).parent.glob(f"{path.name}.*"))
    scenario.expect(bool(aside), f"{kind} {shown}: not set aside")
    return scenario.judge(f"damaged {what}", 1, may_be_redone=redone)


def _interrupted(scenario: Scenario) -> None:
    """Brings a study to where a checkpoint of its second cell or a later one lies there, no more."""
    # An idle machine trains a cell within the default interval, and then there is no checkpoint.
    scenario.checkpoint_seconds = 0.02
    for _ in range(100):
        driver = scenario.run()
        scenario.wait_until(
            lambda: len(finished_ids(scenario.store)) >= 2 and _checkpoints(scenario),
            driver,
            "a second cell",
        )
        driver.kill()
        if len(finished_ids(scenario.store)) < len(scenario.runs) and _checkpoints(scenario):
            return
        # Too late. Start over: predictions and a journal of removed Runs would mislead what follows.
        shutil.rmtree(scenario.root)
        scenario.journal.path.unlink()
        scenario.journal = Journal(scenario.journal.path)
        scenario.fill()
    raise AssertionError("a cell was never met under way")


def _checkpoints(scenario: Scenario) -> list[Path]:
    done = finished_ids(scenario.store)
    found = Path(scenario.root).glob("unfinished/*/*/checkpoint")
    return [path for path in found if path.parents[1].name not in done]


def _one(pattern: str, scenario: Scenario, rng: random.Random) -> Path:
    # Without temporary files, which a killed driver leaves and no reader looks at.
    found = [path for path in Path(scenario.root).glob(pattern) if not path.name.startswith(".")]
    return rng.choice(sorted(found))
