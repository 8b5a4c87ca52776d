"""The words for how a Run stands, each in one place."""

from __future__ import annotations

from typing import Final

# Of rows that are there.
FINISHED: Final = "finished"
DIVERGED: Final = "diverged"  # a loss was not finite: the rows end before

# Of a wanted Run.
DONE: Final = "done"
RUNNING: Final = "running"
WAITING: Final = "waiting"
PARTIAL: Final = "partial"
FAILED: Final = "failed"
START_FAILED: Final = "start failed"
ABSENT: Final = "absent"
MISSING: Final = "missing"
DAMAGED: Final = "damaged"
OTHER_START: Final = "other start"
