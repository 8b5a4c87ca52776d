"""Where everything lies, and how it is published and found again (DESIGN §5).

Owns the objects under a root, which is a directory or a URI that `pyarrow.fs` reads (s3://, gs://).
Refuses to load a pickle, to hand out anything that fails its checksum, and to train or plan.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.fs as pafs

from study import run as runs
from study.run import Run
from study.store import atomic, layout, rows
from study.store.atomic import Damaged
from study.store.layout import rows_path, study_path, unfinished_path, weights_path
from study.store.processes import Process
from study.store.provenance import Provenance
from study.store.retries import WAITS, Waits, is_local
from study.store.rows import Finished, Head

__all__ = [
    "Damaged",
    "Failure",
    "Finished",
    "Head",
    "Store",
    "Unfinished",
    "open_store",
    "rows_path",
    "study_path",
    "unfinished_path",
    "weights_path",
]

# Concurrent reads of small objects: hides a bucket's latency; a directory needs no more.
_NUM_READERS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a Run failed. `final`: it is not tried again until `study retry`; `at`: ISO 8601, UTC."""

    tries: int
    error: str
    final: bool
    at: str
    kind: Literal["error", "start failed"] = "error"


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What lies there of a Run in flight; `newest`: when any of it was last written (UTC)."""

    files: frozenset[str]
    newest: datetime


@dataclass(frozen=True)
class Store:
    """One store. Paths are relative to the root, with "/"; ids are Runs' ids.

    Every method raises OSError, naming path and cause, where the root cannot be read or written: on
    a bucket after bounded retries, in a directory at once unless the error is one that may pass.
    """

    root: str
    fs: pafs.FileSystem = field(compare=False, repr=False)
    base: str = field(repr=False)
    waits: Waits = field(default=WAITS, compare=False, repr=False)

    @property
    def shown(self) -> str:
        """The root for messages: without the credentials that a URI may carry."""
        return _shown(self.root)

    # Objects, whatever they hold.

    def put(self, path: str, payload: bytes) -> None:
        """Publish one object: all of it under its name, or nothing."""
        atomic.put(self.fs, self._at(path), (payload,), self.waits)

    def put_file(self, path: str, local: Path) -> None:
        """Publish a finished file of this machine; the caller gives it up (it may be moved)."""
        atomic.put_file(self.fs, self._at(path), local, self.waits)

    def get(self, path: str) -> bytes:
        """The whole object, unchecked. Raises FileNotFoundError."""
        return atomic.read(self.fs, self._at(path), self.waits)

    def exists(self, path: str) -> bool:
        """Whether a file lies there."""
        return atomic.info(self.fs, self._at(path), self.waits).type == pafs.FileType.File

    def local_path(self, path: str) -> Path | None:
        """The path on this machine; None on a bucket. Says nothing of whether it exists."""
        return Path(self._at(path)) if is_local(self.fs) else None

    def listed(self, folder: str, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """The files in a folder, temporary ones left out, in one paged listing."""
        return atomic.listed(self.fs, self._at(folder), self.waits, recursive=recursive)

    def remove(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""
        atomic.remove(self.fs, self._at(path), self.waits)

    def set_aside(self, path: str) -> str:
        """Move a damaged object to damaged/…, and return its new path. Raises FileNotFoundError."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        new_path = f"damaged/{path}.{stamp}"
        atomic.move(self.fs, self._at(path), self._at(new_path), self.waits)
        return new_path

    def aside(self) -> list[str]:
        """Where everything lies that was set aside: one recursive listing."""
        return [e.path.removeprefix(self._at("")) for e in self.listed("damaged", recursive=True)]

    def sweep(self) -> list[str]:
        """Remove what killed processes have left: temporary files, checkpoints of finished Runs.

        For the driver that holds the lease, before it starts. Returns the paths removed.
        """
        removed = []
        if is_local(self.fs):
            swept = atomic.sweep(Path(self.base))
            removed += [path.relative_to(self.base).as_posix() for path in swept]
        unfinished = self.unfinished()
        for run_id in sorted(self.finished() & unfinished.keys()):
            self.drop_unfinished(run_id)
            removed.append(f"unfinished/{run_id}")
        return removed

    # Rows: finished Runs.

    def finished(self) -> frozenset[str]:
        """Ids of all finished and diverged Runs: one listing, no file is opened."""
        return self._matching("rows", layout.ROWS_NAME)

    def publish_rows(self, run: Run, table: pa.Table, provenance: Provenance) -> None:
        """Publish a Run's rows (schema.ROWS): from here on it is finished."""
        self.put(rows_path(run.id), rows.to_bytes(run, table, provenance))

    def read_rows(self, run_id: str) -> Finished:
        """A finished Run, its digests checked. Raises FileNotFoundError, Damaged."""
        path = rows_path(run_id)
        return rows.from_bytes(self.get(path), run_id, path)

    def read_head(self, run_id: str) -> Head:
        """Run and provenance of a finished Run; its rows are not checked (and in a directory not read)."""
        path = rows_path(run_id)
        with atomic.opened(self.fs, self._at(path), self.waits) as source:
            return rows.head_from(source, run_id, path)

    def read_heads(self, run_ids: Iterable[str]) -> dict[str, Head | Damaged]:
        """`read_head` of many at once, by id; a damaged one gives its Damaged, an absent one nothing."""
        return _concurrently(self.read_head, run_ids)

    def check_rows(self, run_ids: Iterable[str]) -> dict[str, Damaged]:
        """Those whose rows file fails a check of `read_rows`, and why."""

        def check(run_id: str) -> None:
            self.read_rows(run_id)  # and let go: thousands of tables are not held at once

        checked = _concurrently(check, run_ids)
        return {run_id: found for run_id, found in checked.items() if found is not None}

    # Weights.

    def publish_weights(self, run_id: str, payload: bytes) -> str:
        """Publish weights under their own digest, and return it (SHA-256, hex).

        Weights of a Run that was trained twice thus lie beside each other, and the rows, published
        after them, say which are its own.
        """
        digest = hashlib.sha256(payload).hexdigest()
        self.put(weights_path(run_id, digest), payload)
        return digest

    def read_weights(self, run_id: str, digest: str) -> bytes:
        """The weights with this digest. Raises FileNotFoundError, Damaged."""
        path = weights_path(run_id, digest)
        payload = self.get(path)
        found = hashlib.sha256(payload).hexdigest()
        if found != digest:
            raise Damaged(path, f"digest {found[:12]} of {len(payload)} bytes")
        return payload

    def weights(self) -> frozenset[str]:
        """Ids of all Runs with weights: one listing."""
        return self._matching("weights", layout.WEIGHTS_NAME)

    # Runs in flight.

    def write_checkpoint(self, run_id: str, payload: bytes) -> None:
        """Replace the Run's checkpoint."""
        path = self._at(unfinished_path(run_id, "checkpoint"))
        atomic.put(self.fs, path, (layout.frame(payload), payload), self.waits)

    def read_checkpoint(self, run_id: str) -> bytes | None:
        """The Run's checkpoint, None if it has none. Raises Damaged."""
        path = unfinished_path(run_id, "checkpoint")
        try:
            return layout.unframe(self.get(path), path)
        except FileNotFoundError:
            return None

    def began(self, run_id: str, by: Process) -> None:
        """Note which process trains the Run from now on."""
        self.put(unfinished_path(run_id, "began.json"), layout.seal(asdict(by)))

    def read_began(self, run_id: str) -> Process | None:
        """The process that last took the Run up, None if none did. Raises Damaged."""
        path = unfinished_path(run_id, "began.json")
        try:
            return Process(**self._unsealed(path))
        except FileNotFoundError:
            return None
        except TypeError as error:
            raise Damaged(path, f"not a process ({error})") from error

    def trained_by(self) -> dict[str, Process]:
        """Which process last took up each Run in flight, by id; unreadable notes count as absent."""
        ids = [i for i, found in self.unfinished().items() if "began.json" in found.files]
        read = _concurrently(self.read_began, ids)
        return {i: process for i, process in read.items() if isinstance(process, Process)}

    def write_failure(self, run_id: str, failure: Failure) -> None:
        """Note how the Run failed, in place of an earlier failure."""
        self.put(unfinished_path(run_id, "failure.json"), layout.seal(asdict(failure)))

    def read_failure(self, run_id: str) -> Failure | None:
        """How the Run failed; None if it did not, or if the note is unreadable (it can fail again)."""
        try:
            return Failure(**self._unsealed(unfinished_path(run_id, "failure.json")))
        except (FileNotFoundError, Damaged):
            return None

    def failures(self) -> dict[str, Failure]:
        """How Runs failed, by id: `read_failure` of all that there are."""
        ids = [
            run_id for run_id, found in self.unfinished().items() if "failure.json" in found.files
        ]
        read = _concurrently(self.read_failure, ids)
        return {run_id: failure for run_id, failure in read.items() if failure is not None}

    def clear_failure(self, run_id: str) -> None:
        """Forget the Run's failure, if it has one."""
        self.remove(unfinished_path(run_id, "failure.json"))

    def unfinished(self) -> dict[str, Unfinished]:
        """What lies there of Runs in flight or failed, by id: one recursive listing."""
        found: dict[str, Unfinished] = {}
        for entry in self.listed("unfinished", recursive=True):
            match = layout.UNFINISHED_PATH.fullmatch(entry.path.removeprefix(self._at("")))
            if match:
                assert entry.mtime is not None, "listings give the time of every file"
                before = found.get(match[1], Unfinished(files=frozenset(), newest=entry.mtime))
                found[match[1]] = Unfinished(
                    files=before.files | {match[2]}, newest=max(before.newest, entry.mtime)
                )
        return found

    def drop_unfinished(self, run_id: str) -> None:
        """Remove all that lies there of a Run in flight."""
        atomic.remove_folder(
            self.fs, self._at(f"unfinished/{layout.checked_id(run_id)}"), self.waits
        )

    # Studies.

    def write_study(self, name: str, runs_asked: Sequence[Run]) -> None:
        """Note which Runs a study asks for, in their order, in place of an earlier note."""
        asked = [json.loads(runs.to_json(run)) for run in runs_asked]
        self.put(study_path(name), layout.seal({"runs": asked}))

    def read_study(self, name: str) -> list[Run]:
        """The Runs that a study asked for. Raises FileNotFoundError, Damaged."""
        return [
            runs.from_json(json.dumps(plain)) for plain in self._unsealed(study_path(name))["runs"]
        ]

    def studies(self) -> list[str]:
        """Names of all studies, sorted."""
        entries = self.listed("studies")
        return sorted(e.base_name[:-5] for e in entries if e.base_name.endswith(".json"))

    def _at(self, path: str) -> str:
        return f"{self.base}/{path}"

    def _matching(self, folder: str, pattern: re.Pattern[str]) -> frozenset[str]:
        entries = self.listed(folder)
        matches = (pattern.fullmatch(entry.base_name) for entry in entries)
        return frozenset(match[1] for match in matches if match)

    def _unsealed(self, path: str) -> Any:
        return layout.unseal(self.get(path), path)


def open_store(root: str | Path) -> Store:
    """The store at a directory, or at a URI that `pyarrow.fs` reads; nothing is made or asked yet.

    An S3 server of one's own is given in the URI's query, s3://bucket/folder?scheme=http&
    endpoint_override=127.0.0.1:9000, or by AWS_ENDPOINT_URL in the environment. Raises ValueError.
    """
    if "://" not in str(root):
        path = Path(root).expanduser().absolute()
        return Store(str(path), pafs.LocalFileSystem(), str(path))
    try:
        fs, base = pafs.FileSystem.from_uri(str(root))
    except pa.ArrowException as error:
        raise ValueError(
            f"root={_shown(str(root))!r}: {_shown(str(error))}. Choose a directory, s3://bucket/folder, "
            "gs://bucket/folder, or another URI that pyarrow.fs reads"
        ) from error
    if not base.strip("/"):
        raise ValueError(f"root={_shown(str(root))!r}: it names no bucket or folder")
    return Store(str(root), fs, base.rstrip("/"))


def _shown(root: str) -> str:
    return re.sub(r"//[^/@]*@", "//", root)


def _concurrently(read: Any, run_ids: Iterable[str]) -> dict[str, Any]:
    answers: dict[str, Any] = {}

    def ask(run_id: str) -> None:
        try:
            answers[run_id] = read(run_id)
        except Damaged as damaged:
            answers[run_id] = damaged
        except FileNotFoundError:
            pass  # gone since it was listed: another process has finished it, or set it aside

    ids = list(run_ids)
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        list(readers.map(ask, ids))
    return {run_id: answers[run_id] for run_id in ids if run_id in answers}
