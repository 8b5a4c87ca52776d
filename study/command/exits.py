"""The exit statuses of `study`; 3, interrupted or not all trained yet, is `launching.interrupt`'s."""

from __future__ import annotations

from typing import Final

OK: Final = 0
SOME_FAILED: Final = 1
WRONG_INPUT: Final = 2
