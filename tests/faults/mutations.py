"""Ways to break the code on purpose, each with the faults that must notice it.

A mutation applies to drivers and their workers, not to the harness. Forked drivers apply it before the
command begins; in other processes, the tracer applies it when the module `at` has been imported.
"""

from __future__ import annotations

import importlib
import json
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

Code = Callable[[], None]


@dataclass(frozen=True)
class Mutation:
    """`noticed_by`: names of faults, with spaces between; each of them must notice it."""

    noticed_by: str
    break_code: Code
    at: str = "study.launching.train_run"

    @property
    def faults(self) -> list[str]:
        return self.noticed_by.split()


def _patch(where: str, new: Callable[[Any], Any]) -> Code:
    """Return code that replaces `where` ("module:name" or "module:Class.name") by `new(old)`.

    A function or class is also replaced in each module that has imported it from its own module.
    """

    def break_code() -> None:
        module, _, name = where.partition(":")
        *owners, last = name.split(".")
        owner: Any = importlib.import_module(module)
        for each in owners:
            owner = getattr(owner, each)
        old = getattr(owner, last)
        changed = new(old)
        setattr(owner, last, changed)
        if owners or getattr(old, "__module__", None) != module:
            return
        for key, other in list(sys.modules.items()):
            if key.split(".")[0] == "study":
                for theirs in [name for name, value in vars(other).items() if value is old]:
                    setattr(other, theirs, changed)

    return break_code


def _value(where: str, value: Any) -> Code:
    return _patch(where, lambda _: value)


def _returns(where: str, value: Any = None) -> Code:
    return _value(where, lambda *_, **__: value)


def _all(*codes: Code) -> Code:
    def break_code() -> None:
        for code in codes:
            code()

    return break_code


def _equal_to_all(base: type) -> type:
    """Return a subclass whose values are equal to every value."""
    methods = {"__eq__": True, "__ne__": False, "startswith": True}
    always = {name: lambda *_, value=value: value for name, value in methods.items()}
    return type("Equal", (base,), {**always, "__hash__": base.__hash__})


def _unchecked(where: str, base: type = str) -> Code:
    equal = _equal_to_all(base)
    return _patch(where, lambda inner: lambda *given: equal(inner(*given)))


_UNSEALED: Final = _returns("study.store.arrow_file:is_sealed", True)
_PUBLISH: Final = "study.launching.train_run:publish_"
_SIGNALS: Final = "study.signals"
_EXPORT: Final = "analysis.load.export"
_CARD: Final = "analysis.report.dataset_card"
_CLUSTER: Final = "study.launching.on_ray.cluster"
_LEASE: Final = "study.launching.lease"
_TIDY: Final = "study.launching.temporary_files"


def _rows_before_weights() -> None:
    from study.fields import digest_of

    held: list[Callable[[], object]] = []

    def later(inner: Any) -> Any:
        def publish_weights(store: Any, run_id: str, payload: bytes) -> str:
            held.append(lambda: inner(store, run_id, payload))
            return digest_of(payload)

        return publish_weights

    def rows_first(inner: Any) -> Any:
        def publish_rows(*given: Any, **how: Any) -> Any:
            is_first = inner(*given, **how)
            while held:
                held.pop()()
            return is_first

        return publish_rows

    _all(_patch(f"{_PUBLISH}weights", later), _patch(f"{_PUBLISH}rows", rows_first))()


def _rarer(inner: Any) -> Any:
    return lambda self, jobs, store, seconds: inner(self, jobs, store, 15 * seconds)


def _without_optimizer(inner: Any) -> Any:
    return lambda self: {k: v for k, v in inner(self).items() if not k.startswith("optimizer.")}


def _copied(temporary: Path, path: Path) -> None:
    shutil.copyfile(temporary, path)
    temporary.unlink()


def _careless(inner: Any) -> Any:
    def write(path: Path, parts: tuple[bytes, ...]) -> None:
        with suppress(OSError):
            inner(path, parts)

    return write


def _only_when_due(inner: Any) -> Any:
    return lambda self: inner(self) if self.is_due() else None


def _end_silently(self: Any, number: int, frame: Any) -> None:
    if self.is_set:
        os._exit(3)
    self.ask()


def _without_cause(error: OSError, verb: str, path: str, num_tries: int) -> OSError:
    return OSError(f"cannot {verb} {path}")


def _unexplained(inner: Any) -> Any:
    return lambda store, run_id, failure: inner(store, run_id, replace(failure, error="failed"))


def _in_one_order(inner: Any) -> Any:
    def init(self: Any, members: Any) -> None:
        inner(self, members)
        for each in members[1:]:
            each.begin_epoch = lambda epoch, each=each: vars(each).update(order=members[0].order)

    return init


def _first_place(inner: Any) -> Any:
    return lambda wide, place, num_places, *, like: inner(wide, 0, num_places, like=like)


def _finite_together(inner: Any) -> Any:
    def compute_step(self: Any, positions: Any) -> None:
        inner(self, positions)
        self._finite &= self._finite.all()

    return compute_step


def _kept_for_ever(inner: Any) -> Any:
    held: list[Any] = []

    def training(*given: Any) -> Any:
        held.append(inner(*given))
        return held[-1]

    return training


def _task_read_again(_: Any) -> Any:
    from study.tasks import prepared_file

    return lambda name, store, number: prepared_file.load(name, replace(store, lease_number=0))


def _owner_unchecked(content: bytes) -> Any:
    from study.launching.lease import Owner
    from study.store.processes import Process

    plain = json.loads(content)
    return Owner(**(plain | {"process": Process(**plain["process"])}))


def _plain_shutdown() -> None:
    import ray

    ray.shutdown()


def _raised(error: OSError) -> Any:
    raise error


_NO_WAITS: Final = _returns("study.store.errors:waits_for", ())
_NO_FAULT_IN_ROWS: Final = _returns("study.store.schema:fault_in_rows")

MUTATIONS: Final[Mapping[str, Mutation]] = {
    "rows-unchecked": Mutation(
        "damaged-rows", _all(_UNSEALED, _unchecked("study.store.rows:table_digest"))
    ),
    "weights-unchecked": Mutation("damaged-weights", _unchecked("study.store.artifacts:digest_of")),
    "predictions-unchecked": Mutation(
        "damaged-predictions",
        _all(_UNSEALED, _unchecked("study.store.artifacts:predictions_digest")),
    ),
    "checkpoint-unchecked": Mutation(
        "damaged-checkpoint", _unchecked("study.store.studies:frame", bytes)
    ),
    "notes-unchecked": Mutation("damaged-study-file", _unchecked("study.store.studies:digest_of")),
    "task-unchecked": Mutation(
        "damaged-task", _unchecked("study.tasks.prepared_file:fingerprint_of")
    ),
    "no-quarantine": Mutation("damaged-weights", _returns("study.store.store:Store.quarantine")),
    "checkpoints-rarer": Mutation(
        "kill-between-checkpoints", _patch("study.launching.train_run:Checkpoints.__init__", _rarer)
    ),
    "no-optimizer-state": Mutation(
        "kill-between-checkpoints kill-random bucket-driver-killed ray-driver-killed "
        "ray-own-raylet-killed cluster-raylet-killed cluster-node-removed cluster-head-killed",
        _patch("study.training.loop:Training.state", _without_optimizer),
    ),
    "lost-nodes-unnamed": Mutation(
        "cluster-raylet-killed cluster-node-removed",
        _returns("study.launching.on_ray.nodes:Nodes.look", []),
        at="study.launching.on_ray.tuner",
    ),
    "checkpoint-unread": Mutation(
        "kill-between-checkpoints", _returns("study.store.unfinished:read_checkpoint")
    ),
    "rows-before-weights": Mutation("kill-after-source", _rows_before_weights),
    "never-swept": Mutation(
        "kill-after-source kill-publishing", _returns("study.store.atomic:sweep", [])
    ),
    "failed-writes-pass": Mutation(
        "io-call-fails", _patch("study.store.atomic:_write_whole", _careless)
    ),
    "stack-one-order": Mutation(
        "stack-one-lost", _patch("study.training.stacked:Stack.__init__", _in_one_order)
    ),
    "stack-one-state": Mutation(
        "stack-killed stack-extended", _patch("study.training.stacked:_of_place", _first_place)
    ),
    "stack-diverges-together": Mutation(
        "stack-one-diverges", _patch("study.training.stacked:Stack._compute_step", _finite_together)
    ),
    "no-fsync": Mutation("power-loss", _returns("os:fsync")),
    "folders-unflushed": Mutation("power-loss", _returns("study.store.atomic:_flush_folder")),
    "copied-into-place": Mutation("power-loss", _value("study.store.atomic:_rename", _copied)),
    "lease-always-free": Mutation(
        "two-drivers bucket-two-drivers", _returns(f"{_LEASE}:_check_free")
    ),
    "fence-ignored": Mutation(
        "driver-passed-over",
        _all(
            _patch(
                "study.store.layout:unfinished_path",
                lambda inner: lambda run_id, name, lease_number=0: inner(run_id, name),
            ),
            _returns(f"{_LEASE}:lease_lost", False),
        ),
    ),
    "signals-write-nothing": Mutation(
        "signal-inline signal-ray signal-nodes",
        _patch("study.launching.train_run:Checkpoints.write", _only_when_due),
    ),
    "no-waits": Mutation("disk-full", _NO_WAITS),
    "bucket-asked-once": Mutation(
        "bucket-errors bucket-silent",
        _all(
            _NO_WAITS,
            _value("study.store.buckets:_SILENCE", timedelta(seconds=3)),
            _patch(
                "study.store.store:open_store",
                lambda inner: lambda root: replace(inner(root), waits=()),
            ),
        ),
    ),
    "tried-once": Mutation(
        "disk-file-limit ray-worker-killed",
        _all(
            *(
                _value(f"study.launching.{name}:MAX_TRIES", 1)
                for name in ("train_run", "on_ray.searcher", "on_ray.tuner", "queue")
            )
        ),
        at="study.launching.on_ray.tuner",
    ),
    "dead-hold-on": Mutation(
        "kill-first-seconds", _returns("study.store.processes:Process.is_alive")
    ),
    "second-signal-is-silent": Mutation(
        "signal-twice", _value(f"{_SIGNALS}:StopRequest.handle", _end_silently)
    ),
    "causes-missing": Mutation(
        "disk-full-for-long disk-read-only", _value("study.store.errors:_named", _without_cause)
    ),
    "failures-unexplained": Mutation(
        "bug-out-of-memory bug-worker-lost bucket-refuses-one",
        _patch("study.store.unfinished:write_failure", _unexplained),
    ),
    "versions-alike": Mutation("code-changed", _value("study.store.provenance:TRAINER", 1)),
    "hangup-ends-it": Mutation(
        "signal-hup signal-usr1",
        _value(f"{_SIGNALS}:STOP_SIGNALS", (signal.SIGINT, signal.SIGTERM)),
        at=_SIGNALS,
    ),
    "nohup-undone": Mutation(
        "signal-hup-nohup",
        _patch(f"{_SIGNALS}:_DEFAULT", lambda default: (*default, signal.SIG_IGN)),
        at=_SIGNALS,
    ),
    "interrupts-lost": Mutation(
        "signal-ray-start", _returns(f"{_SIGNALS}:_Interrupt.handle"), at=_SIGNALS
    ),
    "shutdown-unhandled": Mutation(
        "signal-ray-start", _value(f"{_CLUSTER}:_shut_down", _plain_shutdown), at=_CLUSTER
    ),
    "analysis-left-running": Mutation(
        "signal-report", _value("subprocess:Popen.terminate", lambda self: os._exit(3)), at=_SIGNALS
    ),
    "divergence-breaks-reports": Mutation(
        "all-diverged",
        _returns("analysis.report.slices:_has_curve", True),
        at="analysis.report.page",
    ),
    "names-are-files": Mutation(
        "root-named-as-study", _returns("__main__:_is_known", False), at=_EXPORT
    ),
    "trainings-held": Mutation(
        "memory-held", _patch("study.launching.train_run:_training", _kept_for_ever)
    ),
    "strangers-trusted": Mutation(
        "stranger-export",
        _all(_returns(f"{_EXPORT}:is_study_name", True), _NO_FAULT_IN_ROWS),
        at=_EXPORT,
    ),
    "nonsense-accepted": Mutation("sealed-nonsense", _NO_FAULT_IN_ROWS),
    "copies-trusted": Mutation(
        "compacting-killed", _value("study.store.compacted:_is_same", lambda *_, **__: True)
    ),
    "published-as-it-is": Mutation(
        "publish-private",
        _patch(
            f"{_CARD}:export", lambda inner: lambda store, name, path, **_: inner(store, name, path)
        ),
        at=_CARD,
    ),
    "unreadable-ends-it": Mutation(
        "shared-users", _value("study.store.store:unreadable", _raised), at="study.store.store"
    ),
    "old-leases-must-go": Mutation(
        "lease-unremovable", _value(f"{_LEASE}:suppress", lambda *_: nullcontext())
    ),
    "eight-digits-only": Mutation(
        "lease-last-number", _value(f"{_LEASE}:LEASE_NAME", re.compile(r"(\d{8})\.json"))
    ),
    "owners-unchecked": Mutation("lease-nested", _value(f"{_LEASE}:_owner_from", _owner_unchecked)),
    "case-matters": Mutation("case-folding", _returns("study.planning.plan:study_names", [])),
    "locks-unseen": Mutation(
        "tidy-other-namespace", _returns(f"{_TIDY}:_is_locked", False), at=_TIDY
    ),
    "requests-repeated": Mutation(
        "bucket-slow", _patch("study.launching.worker_cache:_task_of_lease", _task_read_again)
    ),
    "expiry-without-advice": Mutation(
        "bucket-token-expires", _patch("study.store.errors:_OF_BUCKET", lambda advice: advice[1:])
    ),
}
