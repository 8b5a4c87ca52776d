"""Damaged, forged and published files."""

from __future__ import annotations

import json
import platform
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from analysis.load import export
from study.fields import digest_of
from study.store import Failure, finished_ids
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
    for what, how in (
        (name, {"header": HEADERS[name]}),
        (other, {"header": HEADERS[other]}),
        (wrong, {"rows": ROWS[wrong]}),
    ):
        forge(original, forged, **how)  # type: ignore[arg-type]
        before = set(harness.folder.rglob("*.html"))
        driver = scenario.start("report", str(forged), "--out", "page", fresh=True)
        said = driver.wait(), driver.err.read_text().count("\n")
        scenario.expect(said == (2, 1), f"{what}: status, lines {said}: {driver.said()}")
        scenario.expect_no_traceback(driver)
        scenario.expect(before == set(harness.folder.rglob("*.html")), f"{what}: a page")
    return scenario.judge("export of a stranger", 3)


def sealed_nonsense(harness: Harness, rng: random.Random) -> Outcome:
    """Rows of a cell with a matching checksum that no trainer can have written are quarantined."""
    scenario = harness.scenario()
    scenario.finish()
    (source,) = scenario.sources
    cell, what = rng.choice(sorted(scenario.runs.keys() - {source})), rng.choice(list(ROWS))
    whole = stored.read_rows(scenario.store, cell)
    head = {
        b"format": f"freezewise rows {stored.schema.FORMAT}".encode(),
        b"run": stored.runs.to_json(whole.run).encode(),
        b"provenance": stored.prov.to_json(whole.provenance).encode(),
    }
    table = ROWS[what](whole.table)
    head[b"rows_digest"] = stored.table_digest(table).encode()
    payload = stored.arrow_file.to_bytes(table.unify_dictionaries(), head)
    scenario.store.put(f"rows/{cell}.arrow", payload)
    driver = scenario.finish()
    scenario.expect(f"rows/{cell}.arrow is damaged" in driver.said(), f"{what}: {driver.said()}")
    return scenario.judge("sealed nonsense", 1, may_be_redone={cell})


def publish_private(harness: Harness, rng: random.Random) -> Outcome:
    """A published data set has no host, no path, and nothing of another study."""
    scenario = harness.scenario()
    scenario.finish()
    secret, other = "/home/alice/images", "0" * 12
    failure = Failure(tries=4, error=f"OSError: {secret}/x.png", final=True, at="2026")
    write_failure(scenario.store, other, failure)
    space = scenario.folder / f"{scenario.space}.py"
    space.write_text(space.read_text() + f'\nDATA = "{secret}"\n')
    scenario.say("publish", "set")
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
    return scenario.judge("published data", 1)
