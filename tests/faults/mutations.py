"""The code broken on purpose, in a driver and its trials only: what a harness that can fail must notice.

Each mutation names the faults that are there for it. It is done to the modules of a forked driver, after
they were imported and before the command begins, and in all other processes, Ray's workers among
them, when they are imported (the tracer does it); nothing in `study` knows of it, and what the harness
itself reads the store with stays whole.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

AT_TRAINING: Final = "study.launching.train_run"
AT_EXPORT: Final = "analysis.load.export"
AT_SIGNALS: Final = "study.signals"
AT_TIDY: Final = "study.launching.temporary_files"
AT_REPORT: Final = "analysis.report.page"
AT_CARD: Final = "analysis.report.dataset_card"


@dataclass(frozen=True)
class Mutation:
    """`breaks`: what the code does not do any more; `noticed_by`: names of faults, each of which must.

    `at`: the module after whose import the code is broken.
    """

    name: str
    breaks: str
    noticed_by: tuple[str, ...]
    break_code: Callable[[], None]
    at: str = AT_TRAINING


class _FitsText(str):
    """A digest that is equal to every other."""

    __hash__ = str.__hash__

    def startswith(self, *_: object) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


class _FitsBytes(bytes):
    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def _replace(module: str, name: str, new: Callable[[Any], Any]) -> None:
    """In this module, and in every one that has imported it from there: `new` of what it was."""
    *owners, last = name.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    old = getattr(owner, last)
    changed = new(old)
    setattr(owner, last, changed)
    if owners:
        return
    for key, other in list(sys.modules.items()):
        if key.split(".")[0] == "study":
            for theirs, value in list(vars(other).items()):
                if value is old:
                    setattr(other, theirs, changed)


def _only_in(module: str, name: str, new: Callable[[Any], Any]) -> None:
    owner = importlib.import_module(module)
    setattr(owner, name, new(getattr(owner, name)))


def _digest_unchecked(module: str, name: str, fits: type = _FitsText) -> Callable[[], None]:
    return lambda: _only_in(module, name, lambda inner: lambda *given: fits(inner(*given)))


def _unsealed(then: Callable[[], None]) -> Callable[[], None]:
    def broken() -> None:
        _replace("study.store.arrow_file", "is_sealed", lambda _: lambda payload, path: True)
        then()

    return broken


def _rows_before_weights() -> None:
    from study.fields import digest_of
    from study.launching import train_run

    publish_weights, publish_rows = train_run.publish_weights, train_run.publish_rows
    held: list[tuple[Any, ...]] = []

    def later(store: Any, run_id: str, payload: bytes) -> str:
        held.append((store, run_id, payload))
        return digest_of(payload)

    def rows_first(*given: Any, **how: Any) -> Any:
        is_first = publish_rows(*given, **how)
        while held:
            publish_weights(*held.pop())
        return is_first

    train_run.publish_weights, train_run.publish_rows = later, rows_first


def _rarer_checkpoints() -> None:
    def rarer(inner: Any) -> Any:
        def init(self: Any, jobs: Any, store: Any, seconds: float) -> None:
            inner(self, jobs, store, 15 * seconds)

        return init

    _replace("study.launching.train_run", "Checkpoints.__init__", rarer)


def _no_optimizer_state() -> None:
    def without(inner: Any) -> Any:
        return lambda self: {k: v for k, v in inner(self).items() if not k.startswith("optimizer.")}

    _replace("study.training.loop", "Training.state", without)


def _no_checkpoint_read() -> None:
    _replace("study.store.unfinished", "read_checkpoint", lambda _: lambda *_: None)


def _no_fsync() -> None:
    os.fsync = lambda _: None  # type: ignore[assignment]


def _folders_unflushed() -> None:
    _only_in("study.store.atomic", "_flush_folder", lambda _: lambda path: None)


def _copied_into_place() -> None:
    def copy(temporary: Path, path: Path) -> None:
        shutil.copyfile(temporary, path)
        temporary.unlink()

    _only_in("study.store.atomic", "_rename", lambda _: copy)


def _failed_writes_pass() -> None:
    def careless(inner: Any) -> Any:
        def write(path: Path, parts: tuple[bytes, ...]) -> None:
            with suppress(OSError):
                inner(path, parts)

        return write

    _only_in("study.store.atomic", "_write_whole", careless)


def _lease_always_free() -> None:
    _only_in("study.launching.lease", "_check_free", lambda _: lambda *_: None)


def _fence_ignored() -> None:
    def unnumbered(inner: Any) -> Any:
        return lambda run_id, name, lease_number=0: inner(run_id, name)

    _replace("study.store.layout", "unfinished_path", unnumbered)
    _replace("study.launching.lease", "lease_lost", lambda _: lambda store: False)


def _never_swept() -> None:
    _only_in("study.store.atomic", "sweep", lambda _: lambda *_: [])


def _no_waits() -> None:
    _only_in("study.store.errors", "waits_for", lambda _: lambda *_: ())


def _bucket_asked_once() -> None:
    _no_waits()
    _only_in("study.store.buckets", "_SILENCE", lambda _: timedelta(seconds=3))

    def impatient(inner: Any) -> Any:
        def open_store(root: Any) -> Any:
            return replace(inner(root), waits=())

        return open_store

    _replace("study.store.store", "open_store", impatient)


def _nothing_quarantined() -> None:
    _replace("study.store.store", "Store.quarantine", lambda _: lambda self, path: None)


def _signals_write_nothing() -> None:
    def only_when_due(inner: Any) -> Any:
        return lambda self: inner(self) if self.is_due() else None

    _replace("study.launching.train_run", "Checkpoints.write", only_when_due)


def _tried_once() -> None:
    _only_in("study.launching.train_run", "MAX_TRIES", lambda _: 1)
    # Ray's side has it from there, and may be imported by now.
    for name in ("on_ray.searcher", "on_ray.tuner", "queue"):
        _only_in(f"study.launching.{name}", "MAX_TRIES", lambda _: 1)


def _dead_hold_on() -> None:
    _replace("study.store.processes", "Process.is_alive", lambda _: lambda self: None)


def _second_signal_is_silent() -> None:
    def handle(self: Any, number: int, frame: Any) -> None:
        if self.is_set:
            os._exit(3)
        self.ask()

    _replace("study.signals", "StopRequest.handle", lambda _: handle)


def _causes_untold() -> None:
    def named(error: OSError, verb: str, path: str, num_tries: int) -> OSError:
        return OSError(f"cannot {verb} {path}")

    _only_in("study.store.errors", "_named", lambda _: named)


def _failures_unexplained() -> None:
    def bare(inner: Any) -> Any:
        return lambda store, run_id, failure: inner(store, run_id, replace(failure, error="failed"))

    _replace("study.store.unfinished", "write_failure", bare)


def _versions_alike() -> None:
    _only_in("study.store.provenance", "TRAINER", lambda _: 1)


def _one_order() -> None:
    def same(inner: Any) -> Any:
        def init(self: Any, members: Any) -> None:
            inner(self, members)
            for each in members[1:]:
                each.begin_epoch = lambda epoch, each=each: vars(each).update(
                    order=members[0].order
                )

        return init

    _replace("study.training.stacked", "Stack.__init__", same)


def _one_state() -> None:
    _replace("study.training.stacked", "_of_place", _first_place)


def _first_place(inner: Any) -> Any:
    return lambda wide, place, num_places, *, like: inner(wide, 0, num_places, like=like)


_ALL: Final = (
    Mutation(
        "rows-unchecked",
        "the digests of rows, and of their file, are not compared",
        ("damaged-rows",),
        _unsealed(_digest_unchecked("study.store.rows", "table_digest")),
    ),
    Mutation(
        "weights-unchecked",
        "the digest of weights is not compared",
        ("damaged-weights",),
        _digest_unchecked("study.store.artifacts", "digest_of"),
    ),
    Mutation(
        "predictions-unchecked",
        "the digests of predictions, and of their file, are not compared",
        ("damaged-predictions",),
        _unsealed(_digest_unchecked("study.store.artifacts", "predictions_digest")),
    ),
    Mutation(
        "checkpoint-unchecked",
        "the digest of a checkpoint is not compared",
        ("damaged-checkpoint",),
        _digest_unchecked("study.store.studies", "frame", _FitsBytes),
    ),
    Mutation(
        "notes-unchecked",
        "the digest of study files and notes is not compared",
        ("damaged-study-file",),
        _digest_unchecked("study.store.studies", "digest_of"),
    ),
    Mutation(
        "task-unchecked",
        "the fingerprint of a prepared task is not compared",
        ("damaged-task",),
        _digest_unchecked("study.tasks.prepared_file", "fingerprint_of"),
    ),
    Mutation(
        "nothing-set-aside",
        "what is damaged stays where it is",
        ("damaged-weights",),
        _nothing_quarantined,
    ),
    Mutation(
        "checkpoints-rarer",
        "checkpoints come 15 times rarer",
        ("kill-between-checkpoints",),
        _rarer_checkpoints,
    ),
    Mutation(
        "no-optimizer-state",
        "a checkpoint lacks the optimiser's state",
        (
            "kill-between-checkpoints",
            "kill-random",
            "bucket-driver-killed",
            "ray-driver-killed",
            "ray-own-raylet-killed",
            "cluster-raylet-killed",
            "cluster-node-removed",
            "cluster-head-killed",
        ),
        _no_optimizer_state,
    ),
    Mutation(
        "checkpoint-unread",
        "a Run begins anew although it has a checkpoint",
        ("kill-between-checkpoints",),
        _no_checkpoint_read,
    ),
    Mutation(
        "rows-before-weights",
        "a source's rows are published before its weights",
        ("kill-after-source",),
        _rows_before_weights,
    ),
    Mutation(
        "never-swept",
        "temporary files of killed drivers stay",
        ("kill-after-source", "kill-publishing"),
        _never_swept,
    ),
    Mutation(
        "failed-writes-pass",
        "an object of which a write failed is published as it is",
        ("io-call-fails",),
        _failed_writes_pass,
    ),
    Mutation(
        "stack-one-order",
        "seeds trained together see their images in the order of the first",
        ("stack-one-lost",),
        _one_order,
    ),
    Mutation(
        "stack-one-state",
        "all seeds trained together save the weights and optimiser state of one place",
        ("stack-killed", "stack-extended"),
        _one_state,
    ),
    Mutation("no-fsync", "nothing is flushed to the disk", ("power-loss",), _no_fsync),
    Mutation(
        "folders-unflushed",
        "folders are not flushed after a rename",
        ("power-loss",),
        _folders_unflushed,
    ),
    Mutation(
        "copied-into-place",
        "objects are copied under their names, not renamed",
        ("power-loss",),
        _copied_into_place,
    ),
    Mutation(
        "lease-always-free",
        "every lease is taken for a dead driver's",
        ("two-drivers", "bucket-two-drivers"),
        _lease_always_free,
    ),
    Mutation(
        "fence-ignored",
        "a driver that was passed over writes where its successor does",
        ("driver-passed-over",),
        _fence_ignored,
    ),
    Mutation(
        "signals-write-nothing",
        "a signal ends a Run without a checkpoint",
        ("signal-inline", "signal-ray", "signal-nodes"),
        _signals_write_nothing,
    ),
    Mutation("no-waits", "no error is worth another try", ("disk-full",), _no_waits),
    Mutation(
        "bucket-asked-once",
        "a request to a bucket is given up after 3 s without an answer, and none is made again",
        ("bucket-errors", "bucket-silent"),
        _bucket_asked_once,
    ),
    Mutation(
        "tried-once",
        "a Run is given up at its first failure",
        ("disk-file-limit", "ray-worker-killed"),
        _tried_once,
    ),
    Mutation(
        "dead-hold-on",
        "a dead driver's lease counts until it expires",
        ("kill-first-seconds",),
        _dead_hold_on,
    ),
    Mutation(
        "second-signal-is-silent",
        "a second Ctrl-C ends it without a word on how to go on",
        ("signal-twice",),
        _second_signal_is_silent,
    ),
    Mutation(
        "causes-untold",
        "an error of a disk does not say why",
        ("disk-full-for-long", "disk-read-only"),
        _causes_untold,
    ),
    Mutation(
        "failures-unexplained",
        "why a Run failed is not noted",
        ("bug-out-of-memory", "bug-worker-lost", "bucket-refuses-one"),
        _failures_unexplained,
    ),
    Mutation(
        "versions-alike",
        "rows do not hold the version of the trainer that made them",
        ("code-changed",),
        _versions_alike,
    ),
)


def _keep_every_training() -> None:
    held: list[Any] = []

    def keeping(inner: Any) -> Any:
        def training(*given: Any) -> Any:
            held.append(inner(*given))
            return held[-1]

        return training

    _only_in("study.launching.train_run", "_training", keeping)


def _strangers_trusted() -> None:
    _only_in("analysis.load.export", "is_study_name", lambda _: lambda name: True)
    _replace("study.store.schema", "fault_in_rows", lambda _: lambda *_: None)


def _requests_repeated() -> None:
    from study.tasks import prepared_file

    _only_in(
        "study.launching.worker_cache",
        "_task_of_lease",
        lambda _: (
            lambda name, store, number: prepared_file.load(name, replace(store, lease_number=0))
        ),
    )


def _owners_unchecked() -> None:
    import json

    from study.launching.lease import Owner
    from study.store.processes import Process

    def careless(content: bytes) -> Any:
        plain = json.loads(content)
        return Owner(**(plain | {"process": Process(**plain["process"])}))

    _only_in("study.launching.lease", "_owner_from", lambda _: careless)


def _unreadable_ends_it() -> None:
    def strict(error: OSError) -> Any:
        raise error

    _replace("study.store.store", "unreadable", lambda _: strict)


def _as_before(name: str, new: Any, module: str = "study.signals") -> Callable[[], None]:
    return lambda: _only_in(module, name, lambda _: new)


_LATEST: Final = (
    Mutation(
        "hangup-ends-it",
        "only SIGINT and SIGTERM are handled",
        ("signal-hup", "signal-usr1"),
        _as_before("STOP_SIGNALS", (signal.SIGINT, signal.SIGTERM)),
        at=AT_SIGNALS,
    ),
    Mutation(
        "nohup-undone",
        "a handler is installed although the signal is ignored",
        ("signal-hup-nohup",),
        _as_before("_DEFAULT", (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)),
        at=AT_SIGNALS,
    ),
    Mutation(
        "interrupts-lost",
        "a signal before the training is swallowed, and nothing remembers it",
        ("signal-ray-start",),
        lambda: _replace("study.signals", "_Interrupt.handle", lambda _: lambda *_: None),
        at=AT_SIGNALS,
    ),
    Mutation(
        "analysis-left-running",
        "a signal to `study report` does not reach its analysis",
        ("signal-report",),
        lambda: _replace("subprocess", "Popen.terminate", lambda _: lambda self: os._exit(3)),
        at=AT_SIGNALS,
    ),
    Mutation(
        "divergence-breaks-reports",
        "a curve of one point is judged",
        ("all-diverged",),
        lambda: _only_in("analysis.report.slices", "_has_curve", lambda _: lambda epochs: True),
        at=AT_REPORT,
    ),
    Mutation(
        "names-are-files",
        "a name that is a folder here is not taken for a study",
        ("root-named-as-study",),
        lambda: _only_in("__main__", "_is_known", lambda _: lambda study, root: False),
        at=AT_EXPORT,
    ),
    Mutation(
        "trainings-held",
        "finished trainings stay in memory",
        ("memory-held",),
        _keep_every_training,
    ),
    Mutation(
        "strangers-trusted",
        "neither the study's name nor the rows of an export are checked",
        ("stranger-export",),
        _strangers_trusted,
        at=AT_EXPORT,
    ),
    Mutation(
        "nonsense-accepted",
        "rows with a right checksum are not looked at",
        ("sealed-nonsense",),
        lambda: _replace("study.store.schema", "fault_in_rows", lambda _: lambda *_: None),
    ),
    Mutation(
        "published-as-it-is",
        "a published data set is an ordinary export",
        ("publish-private",),
        lambda: _only_in(
            AT_CARD, "export", lambda inner: lambda store, name, path, **_: inner(store, name, path)
        ),
        at=AT_CARD,
    ),
    Mutation(
        "unreadable-ends-it",
        "one unreadable file ends a command",
        ("shared-users",),
        _unreadable_ends_it,
    ),
    Mutation(
        "old-leases-must-go",
        "an old lease that cannot be removed is an error",
        ("lease-unremovable",),
        _as_before("suppress", lambda *_: nullcontext(), "study.launching.lease"),
    ),
    Mutation(
        "eight-digits-only",
        "a lease number has exactly eight digits",
        ("lease-last-number",),
        _as_before("LEASE_NAME", re.compile(r"(\d{8})\.json"), "study.launching.lease"),
    ),
    Mutation(
        "owners-unchecked",
        "what a lease says of its owner is believed",
        ("lease-nested",),
        _owners_unchecked,
    ),
    Mutation(
        "case-matters",
        "names of studies are compared letter by letter",
        ("case-folding",),
        _as_before("study_names", lambda _: [], "study.planning.plan"),
    ),
    Mutation(
        "locks-unseen",
        "a temporary folder is in use only if its process is seen",
        ("tidy-other-namespace",),
        _as_before("_is_locked", lambda _: False, "study.launching.temporary_files"),
        at=AT_TIDY,
    ),
    Mutation(
        "requests-repeated",
        "each Run reads its task from the bucket again",
        ("bucket-slow",),
        _requests_repeated,
    ),
    Mutation(
        "expiry-without-advice",
        "an expired token is an error like any other",
        ("bucket-token-expires",),
        lambda: _only_in("study.store.errors", "_OF_BUCKET", lambda advice: advice[1:]),
    ),
)
MUTATIONS: Final[Mapping[str, Mutation]] = {
    mutation.name: mutation for mutation in (*_ALL, *_LATEST)
}
