"""Show progress on a terminal, or as plain lines in a log or a notebook."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TextIO

from study.messages import duration, show_message
from study.signals import lost_terminal_ignored

if TYPE_CHECKING:
    from study.launching.progress import Snapshot

SECONDS_BETWEEN_LINES: Final = 30.0  # in a log file
SECONDS_BETWEEN_LOOKS: Final = 0.5  # on a terminal
DRAWN_PER_SECOND: Final = 4
BAR_CHARACTERS: Final = 40


class Screen:
    """Shows phases, then progress. As a context manager, clears the progress at the end.

    `stream`: the output, by default stderr. `quiet`: show remarks only.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream or sys.stderr
        self.quiet = quiet
        self._in_place = not quiet and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._began = time.monotonic()
        self._phase, self._phase_began = "", self._began
        self._look: Callable[[], Snapshot] | None = None
        self._snapshot: Snapshot | None = None
        self._looked_at = -float("inf")
        self._shown = ""
        self._remarks: set[str] = set()
        self._live: Any = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.rest()

    def phase(self, text: str) -> None:
        """Show this phase from now on, such as "starting Ray"."""
        self._phase, self._phase_began, self._look, self._snapshot = (
            text,
            time.monotonic(),
            None,
            None,
        )
        if self._in_place:
            self._draw()
        elif not self.quiet:
            self._line(f"study: {text}")

    def follow(self, look: Callable[[], Snapshot]) -> None:
        """Show from now on the progress that `look` returns."""
        self._look, self._looked_at = look, -float("inf")
        self.tick()

    def tick(self) -> None:
        """Refresh the progress if the time between two refreshes is over."""
        pause = SECONDS_BETWEEN_LOOKS if self._in_place else SECONDS_BETWEEN_LINES
        if not self.quiet and time.monotonic() - self._looked_at >= pause:
            self._refresh()

    def remark(self, text: str, *, once: bool = False) -> None:
        """Print a line that stays on the screen. `once`: skip a line that was printed before."""
        if not (once and text in self._remarks):
            with lost_terminal_ignored():
                show_message(text)
        self._remarks.add(text)

    def end(self) -> None:
        """Stop following Runs; the last progress stays as a line."""
        if self._look is None:
            return
        if not self.quiet:
            self._refresh()
        self._look, text = None, self._snapshot.text() if self._snapshot is not None else ""
        self.rest()
        if self._in_place and text:
            self._write(text)

    @lost_terminal_ignored()
    def rest(self) -> None:
        """Clear the progress from the terminal until the next refresh."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _refresh(self) -> None:
        assert self._look is not None
        self._snapshot, self._looked_at = self._look(), time.monotonic()
        if self._in_place:
            self._draw()
        else:
            self._line(self._snapshot.text())

    def _line(self, text: str) -> None:
        if text != self._shown:
            self._write(text)
            self._shown = text

    @lost_terminal_ignored()
    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    @lost_terminal_ignored()
    def _draw(self) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, force_jupyter=False, highlight=False)
            self._live = Live(
                console=console,
                get_renderable=self._picture,
                refresh_per_second=DRAWN_PER_SECOND,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start(refresh=True)
            console.show_cursor()  # a killed process would leave the terminal without a cursor
        else:
            self._live.refresh()

    def _picture(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        # rich calls this in a thread of its own, which must not read the queue.
        now, seen = time.monotonic(), self._snapshot
        if seen is None:
            return Spinner("dots", Text(f"{self._phase}  {duration(now - self._phase_began)}"))
        first = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=seen.share, width=BAR_CHARACTERS)
        first.add_row(bar, Text(f"{seen.num_done} of {seen.num_runs} Runs, {seen.left_text()}"))
        lines: list[Any] = [
            first,
            _cut_off(f"{seen.counts_text()}; {duration(now - self._began)} so far"),
        ]
        if seen.dearest:
            lines.append(_cut_off(f"dearest running: {seen.dearest}", "dim"))
        if seen.last_error:
            lines.append(_cut_off(f"last error: {seen.last_error}", "red"))
        return Group(*lines)


def _cut_off(text: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
