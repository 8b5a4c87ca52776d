"""Damage, forge and publish files."""

from __future__ import annotations

import json
import platform
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from analysis import load
from analysis.load import export
from study.fields import digest_of
from study.store import Failure, finished_ids, rows_path
from study.store import rows as stored
from study.store.layout import unfinished_folder
from study.store.unfinished import write_failure
from tests.faults.harness import Harness, Outcome, Scenario
from tests.faults.journal import Journal

Damage = Callable[[bytes, random.Random], bytes]


def _torn(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def _emptied(content: bytes, rng: random.Random) -> bytes:
    return b""


def _flipped(content: bytes, rng: random.Random) -> bytes:
    """Flip one bit that changes something: not in padding, which no reader looks at."""
    places = [i for i, byte in enumerate(content) if byte] or [0]
    while True:
        changed = bytearray(content)
        changed[rng.choice(places)] ^= 1 << rng.randrange(8)
        if _as_read(bytes(changed)) != _as_read(content):
            return bytes(changed)


def _as_read(content: bytes) -> bytes:
    """Return what a plain reader gets of an Arrow file, with its metadata; else the bytes themselves."""
    table = _table_of(content)
    if table is None:
        return content
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _table_of(content: bytes) -> pa.Table | None:
    if not content.startswith(b"ARROW1"):
        return None
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return None
    return table


def _misleading(content: bytes, rng: random.Random) -> bytes:
    """Change a value so that the file stays readable: only a checksum shows it."""
    before = _table_of(content)
    while before is not None:
        changed = _flipped(content, rng)
        table = _table_of(changed)
        if table is not None and table.schema.equals(before.schema) and not table.equals(before):
            return changed
    # In JSON, a digit after the checksum; in tensors, a bit of a value.
    is_json = content.lstrip().startswith(b"{\n")
    places = range(len(content) // 2, len(content))
    where = rng.choice([i for i in places if not is_json or chr(content[i]).isdigit()])
    old = content[where]
    new = ord(str((int(chr(old)) + 1) % 10)) if is_json else old ^ 1 << rng.randrange(8)
    return content[:where] + bytes([new]) + content[where + 1 :]


DAMAGES: Final[Mapping[str, Damage]] = {
    "torn": _torn,
    "emptied": _emptied,
    "bit-flipped": _flipped,
    "misleading": _misleading,
}


def damaged(harness: Harness, rng: random.Random, *, pattern: str) -> Outcome:
    """Damage a file in two ways, in two copies of a study: one is a fault that only a checksum shows."""
    outcomes = []
    for kind in (rng.choice(["torn", "emptied", "bit-flipped"]), "misleading"):
        scenario = harness.scenario(like=_interrupted)
        root = Path(scenario.root)
        # Predictions of an unfinished Run are never read: it is trained again.
        done = sorted(finished_ids(scenario.store) - scenario.sources)
        found = root.glob(pattern.format(cell=rng.choice(done)))
        # A killed driver leaves temporary files, which no reader looks at.
        path = rng.choice(sorted(each for each in found if not each.name.startswith(".")))
        shown = path.relative_to(root).as_posix()
        path.write_bytes(DAMAGES[kind](path.read_bytes(), rng))
        redone = {run_id for run_id in scenario.runs if run_id in shown}
        said = scenario.say("status") + scenario.finish().said()
        scenario.expect(shown in said, f"{kind} {shown} is not named: {said}")
        aside = list((root / "damaged" / shown).parent.glob(f"{path.name}.*"))
        scenario.expect(aside, f"{kind} {shown} is not quarantined")
        outcomes.append(scenario.judge(may_be_redone=redone))
    first, last = outcomes
    return replace(last, times=2, problems=first.problems + last.problems)


def _interrupted(scenario: Scenario) -> None:
    """Bring a study to a checkpoint of its second cell or a later one."""
    # A fast machine would train a cell within the default interval.
    scenario.checkpoint_seconds = 0.02
    for _ in range(100):
        driver = scenario.run()

        def is_there() -> bool:
            done = finished_ids(scenario.store)
            found = Path(scenario.root).glob("unfinished/*/*/checkpoint")
            return len(done) >= 2 and any(path.parents[1].name not in done for path in found)

        driver.wait_until(is_there, "a second cell")
        driver.kill()
        if len(finished_ids(scenario.store)) < len(scenario.runs) and is_there():
            return
        # Too late: start over, without predictions and events of removed Runs.
        shutil.rmtree(scenario.root)
        scenario.journal.path.unlink()
        scenario.journal = Journal(scenario.journal.path)
        scenario.fill()
    raise AssertionError("no driver was killed while a cell was in training")


def _nested(run: dict[str, Any], depth: int) -> dict[str, Any]:
    for _ in range(depth):
        run = run | {"start": run, "frozen": 0}
    return run


def _run(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    """Change fields of the first wanted Run, which then has another id."""
    return lambda header: header | {"wanted": [header["wanted"][0] | fields, *header["wanted"][1:]]}


def _ended(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header | {"ended": [header["ended"][0] | fields, *header["ended"][1:]]}


def _made_by(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    def forged(header: dict[str, Any]) -> Any:
        made_by = header["ended"][0]["provenance"] | fields
        return _ended(provenance=made_by)(header)

    return forged


def _registered(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    plain = {"registered_at": "2026", "is_late": False, "run_ids": [], "terms": {}} | fields
    return lambda header: header | {"registrations": [plain]}


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: {key: value for key, value in header.items() if key != name}


# The checksum of each forged header is right.
HEADERS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    **{
        f"study {name!r}": lambda header, name=name: header | {"study": name}
        for name in ("../../elsewhere", "/tmp/elsewhere", "a/b", "", ".hidden", 7, None, ["x"])
    },
    "no JSON": lambda _: "{",
    "a list": lambda _: "[1]",
    "deep list": lambda _: "[" * 100_000,
    "no format": _without("format"),
    "later format": lambda header: header | {"format": {"\x1b[2J": 1}},
    **{f"no {name}": _without(name) for name in ("study", "wanted", "ended", "failures")},
    **{
        f"{name} of another type": lambda header, name=name: header | {name: 5}
        for name in ("wanted", "ended", "failures", "damaged", "registrations")
    },
    "wanted none": lambda header: header | {"wanted": [], "ended": []},
    "wanted twice": lambda header: header | {"wanted": header["wanted"] * 2},
    "too many starts": lambda header: header | {"wanted": [_nested(header["wanted"][0], 900)]},
    "task with a path": _run(task="../x"),
    "task that clears a terminal": _run(task="\x1b[2Jx"),
    "task of many letters": _run(task="x" * 5_000),
    "huge size": _run(size=10**400),
    "unknown field": _run(colour="red"),
    "Run not wanted": _ended(id="0" * 12),
    "ended twice": lambda header: header | {"ended": header["ended"][:1] * 2},
    "ended without rows": lambda header: header | {"ended": header["ended"] + header["ended"][:1]},
    "no ended": lambda header: header | {"ended": []},
    **{f"num_rows {n!r}": _ended(num_rows=n) for n in (0, -1, 1, 10**30, "3", None, 2.5)},
    "outcome": _ended(outcome="lucky"),
    "sizes": _ended(num_layers=77),
    "evaluations": _ended(schedule=["x"]),
    "provenance": _ended(provenance=[]),
    "packages": _made_by(packages="torch"),
    "host": _made_by(host="\x1b[2J"),
    "digest": _made_by(weights_digest={}),
    "failure": lambda header: header | {"failures": {"0" * 12: ["x"]}},
    "damage": lambda header: header | {"damaged": {"0" * 12: "\x1b[2J"}},
    "registered at": _registered(registered_at=5),
    "registered terms": _registered(terms=[]),
    "registered number": _registered(terms={"EPSILONS": float("nan")}),
    "registered huge number": _registered(terms={"EPSILONS": 10**400}),
    "registered code": _registered(terms={"code": {}}),
    "registered later": _registered(colour="red"),
}


def _with(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[pa.Table], pa.Table]:
    def forged(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        field = table.schema.field(index)
        plain = table.column(name).combine_chunks()
        if pa.types.is_dictionary(field.type):
            plain = plain.dictionary_decode()
        changed = pa.array(change(plain.to_numpy(zero_copy_only=False).copy()), plain.type)
        return table.set_column(index, field, changed.cast(field.type))

    return forged


def _last(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.append(values[:-1], np.array([value], values.dtype))


ROWS: Final[Mapping[str, Callable[[pa.Table], pa.Table]]] = {
    "error that is NaN": _with("test_error", _last(np.nan)),
    "error of 17": _with("train_error", _last(17.0)),
    "error below 0": _with("test_error", _last(-0.1)),
    "endless loss": _with("test_loss", _last(np.inf)),
    "flipped error above 1": _with("train_error_flipped", _last(1.5)),
    "epochs that descend": _with("epoch", _last(0.0)),
    "steps that descend": _with("step", _last(0)),
    "time below 0": _with("wall_seconds", _last(-1.0)),
    "another Run's seed": _with("seed", lambda values: values + 1),
    "another Run's task": _with("task", lambda values: values.astype(object) + "x"),
    "another Run's id": _with("run_id", _last("0" * 12)),
    "unknown outcome": _with("outcome", lambda values: np.full(len(values), "lucky", object)),
    "layers that change": _with("num_layers", _last(99)),
    "parameters that do not add up": _with("parameters_total", lambda values: values + 1),
    "classes below 0": _with("num_classes", lambda values: -values),
}


def forge(
    original: Path,
    forged: Path,
    *,
    header: Callable[[dict[str, Any]], Any] = lambda header: header,
    rows: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> None:
    """Write an export with another header or other rows, and with matching checksums."""
    file = pq.ParquetFile(original)
    changed = header(json.loads(file.metadata.metadata[export.METADATA_KEY]))
    text = changed if isinstance(changed, str) else json.dumps(changed)
    with pq.ParquetWriter(forged, export.COLUMNS, write_page_checksum=True) as writer:
        writer.write_table(rows(file.read().cast(export.COLUMNS)))
        digest = digest_of(text.encode())
        writer.add_key_value_metadata(
            {export.METADATA_KEY.decode(): text, export.DIGEST_KEY.decode(): digest}
        )


def stranger_export(harness: Harness, rng: random.Random) -> Outcome:
    """Report three forged exports of a study: each is rejected in one line, and nothing is written."""
    scenario = harness.scenario()
    scenario.finish()
    original, forged = scenario.folder / "own.parquet", scenario.folder / "forged.parquet"
    scenario.say("export", original.name)
    # Only the checks of the name and of the values notice the first and the last one.
    name, other, wrong = "study '../../elsewhere'", rng.choice(list(HEADERS)), "error of 17"
    changes = ({"header": HEADERS[name]}, {"header": HEADERS[other]}, {"rows": ROWS[wrong]})
    for what, change in zip((name, other, wrong), changes, strict=True):
        forge(original, forged, **change)  # type: ignore[arg-type]
        before = set(harness.folder.rglob("*.html"))
        driver = scenario.start("report", str(forged), "--out", "page", fresh=True)
        scenario.expect_end(driver, 2)
        is_line = driver.err.read_text().count("\n") == 1
        scenario.expect(is_line, f"{what}: not one line: {driver.said()}")
        scenario.expect(before == set(harness.folder.rglob("*.html")), f"{what}: a page")
    return scenario.judge(3)


def sealed_nonsense(harness: Harness, rng: random.Random) -> Outcome:
    """`verify --repair` quarantines rows with a matching checksum that no trainer can have written."""
    scenario = harness.scenario()
    scenario.finish()
    cell, what = rng.choice(scenario.cells), rng.choice(list(ROWS))
    whole = stored.read_rows(scenario.store, cell)
    table = ROWS[what](whole.table)
    head = {
        b"format": f"freezewise rows {stored.schema.FORMAT}".encode(),
        b"run": stored.runs.to_json(whole.run).encode(),
        b"provenance": stored.prov.to_json(whole.provenance).encode(),
        b"rows_digest": stored.table_digest(table).encode(),
    }
    payload = stored.arrow_file.to_bytes(table.unify_dictionaries(), head)
    scenario.store.put(f"rows/{cell}.arrow", payload)
    said = scenario.say("verify", "--repair")
    scenario.expect(f"rows/{cell}.arrow is damaged" in said, f"{what}: {said}")
    scenario.finish()
    return scenario.judge(may_be_redone={cell})


def compacting_killed(harness: Harness, rng: random.Random) -> Outcome:
    """`study compact`, killed at each file that it names, changes no result; then a bit is flipped."""
    scenario = harness.scenario()
    scenario.finish()
    written = load.open_study(scenario.root).read().to_pandas()

    def expect_same(when: str) -> None:
        found = load.open_study(scenario.root).read().to_pandas()
        scenario.expect(found.equals(written), f"other rows {when}")

    for name in (r"[0-9a-f]{12}\.parquet", r"manifest\.arrow"):
        killed = scenario.start("compact", die_at=f"os.rename /compacted/{name}$")
        scenario.expect(killed.wait() == -signal.SIGKILL, f"not killed: {killed.said()}")
        expect_same(f"after a kill at {name}")
    scenario.expect_end(scenario.start("compact"), 0)
    expect_same("from the copy")
    cell = rng.choice(scenario.cells)
    path = Path(scenario.root, rows_path(cell))
    path.write_bytes(_flipped(path.read_bytes(), rng))
    said = scenario.finish().said()
    scenario.expect(f"{rows_path(cell)} is damaged" in said, f"hidden by its copy: {said}")
    return scenario.judge(2, may_be_redone={cell})


def publish_private(harness: Harness, rng: random.Random) -> Outcome:
    """A published data set has no host, no path, and nothing of another study."""
    scenario = harness.scenario()
    scenario.finish()
    secret, other = "/home/alice/images", "0" * 12
    failure = Failure(tries=4, error=f"OSError: {secret}/x.png", final=True, at="2026")
    write_failure(scenario.store, other, failure)
    with scenario.space_path.open("a") as space:
        space.write(f'\nDATA = "{secret}"\n')
    scenario.say("publish", "set", "--licence", "cc0-1.0")
    file = pq.ParquetFile(scenario.folder / "set" / "data" / "rows.parquet")
    text = file.metadata.metadata[export.METADATA_KEY].decode()
    header = json.loads(text)
    hosts = {each["provenance"].get("host", "") for each in header["ended"]}
    scenario.expect(hosts <= {"", None}, f"hosts: {hosts}")
    scenario.expect(header["failures"] == {}, f"failures: {header['failures']}")
    published = text + (scenario.folder / "set" / "space.py").read_text()
    for each in (secret, str(scenario.folder), platform.node(), other):
        scenario.expect(each not in published, f"{each} is published")
    shutil.rmtree(Path(scenario.root, unfinished_folder(other)))
    return scenario.judge()
