"""One try at one Run, and how it ended.

Owns how often a Run is tried, and which text of a failure the store keeps. Knows nothing of Ray: a
trial on a cluster and `inline` both come through here.
"""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from study.launching.execute import Interrupted, execute
from study.launching.lease import passed_over
from study.launching.means import Means
from study.messages import last_line
from study.run import Run
from study.store import (
    Damaged,
    Failure,
    Store,
    provenance,
    read_failure,
    read_head,
    rows_path,
    weights_path,
    write_failure,
)
from study.store.schema import Row

MAX_TRIES: Final = 4

# Of a failure's text; the store keeps the end, where the exception stands.
ERROR_CHARACTERS: Final = 8_000

Outcome = Literal[
    "finished", "diverged", "interrupted", "start lost", "try again", "failed", "failed unnoted"
]


@dataclass(frozen=True)
class Attempt:
    """How a try ended; `error`: the text of the exception, where there was one.

    Of "failed unnoted" it is one line, as the store could not take note of more.
    """

    outcome: Outcome
    error: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether the Run itself failed."""
        return self.outcome in ("try again", "failed", "failed unnoted")


def attempt(
    run: Run,
    store: Store,
    means: Means,
    *,
    keep_weights: bool,
    keep_predictions: bool,
    on_row: Callable[[Row], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Attempt:
    """Trains the Run, from its checkpoint where it has one.

    An exception is noted in the store with the number of tries so far, those of earlier launches
    included, and gives "try again", or "failed" after MAX_TRIES; where it cannot even be noted (a full
    disk), it gives "failed unnoted".
    Where the Run's start has vanished or is damaged, that is no failure of the Run: it gives "start
    lost", and what is damaged is set aside.
    """
    try:
        if passed_over(store) or (should_stop is not None and should_stop()):
            return Attempt("interrupted")
        outcome = execute(
            run,
            store,
            means,
            keep_weights=keep_weights,
            keep_predictions=keep_predictions,
            on_row=on_row,
            should_stop=should_stop,
        )
        return Attempt("diverged" if outcome == "diverged" else "finished")
    except Interrupted:
        return Attempt("interrupted")
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        # The frames of the exception refer to the whole training, and memory may be what is short.
        traceback.clear_frames(error.__traceback__)
        try:
            if passed_over(store):
                return Attempt("interrupted")
            if run.source is not None and _is_lost(run.source, store, error):
                return Attempt("start lost", str(error))
            before = read_failure(store, run.id)
            tries = 1 + (before.tries if before is not None and before.kind == "error" else 0)
            failure = Failure(
                tries=tries,
                error=text[-ERROR_CHARACTERS:],
                final=tries >= MAX_TRIES,
                at=provenance.now(),
            )
            write_failure(store, run.id, failure)
        except (OSError, Damaged) as unwritable:
            return Attempt("failed unnoted", f"{last_line(text)} (and no note of it: {unwritable})")
        return Attempt("failed" if tries >= MAX_TRIES else "try again", text)
    finally:
        _return_freed_memory()


def _return_freed_memory() -> None:
    """Hand memory that the process has freed back to the system (glibc; elsewhere nothing is done).

    glibc keeps freed blocks of up to 32 MiB. At width 64 a process grew from 1.3 to 1.9 GB over 20
    Runs; with this it stays at 1.05 GB. It takes 20 ms of a Run of 2 to 5 s, 1 ms at width 4.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _is_lost(start: Run, store: Store, error: Exception) -> bool:
    """Whether the error is that this start's rows or weights are not what they should be."""
    if isinstance(error, Damaged):
        ours = start.id in error.path
        if ours:
            with suppress(FileNotFoundError):  # another trial has noticed it too
                store.set_aside(error.path)
        return ours
    if not store.exists(rows_path(start.id)):
        return True
    made_by = read_head(store, start.id).provenance
    digest = made_by.weights_digest
    kept = digest is not None and store.exists(weights_path(start.id, digest))
    return not kept and made_by.diverged_step is None
