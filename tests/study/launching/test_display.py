"""The display: a bar on a terminal, lines otherwise, only remarks with --quiet."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from study.launching.display import SECONDS_BETWEEN_LINES, Screen
from study.launching.progress import Snapshot
from tests.processes import environment

SEEN = Snapshot(
    num_runs=10,
    num_done=3,
    num_running=2,
    num_starting=0,
    num_waiting=4,
    num_failed=1,
    share=0.5,
    runs_per_minute=11.23,
    seconds_left=125.0,
    dearest="digits n=100, frozen 0, seed 3: epoch 4 of 10",
    last_error="ValueError: no",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """Everything that was drawn, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture(autouse=True)
def a_terminal_of_120_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def test_screen_on_a_terminal_shows_a_phase_and_a_bar() -> None:
    stream = Terminal()
    with Screen(stream) as screen:
        screen.phase("starting Ray")
        assert "starting Ray  0 s" in stream.text
        screen.follow(lambda: SEEN)
        for line in (
            "3 of 10 Runs, 11 a minute, about 2 min 5 s left",
            "2 running, 4 waiting, 1 failed; 0 s so far",
            "dearest running: digits n=100, frozen 0, seed 3: epoch 4 of 10",
            "last error: ValueError: no",
        ):
            assert line in stream.text
        screen.end()
    assert stream.text.endswith(f"{SEEN.text()}\n"), "what stays"
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_screen_without_a_terminal_prints_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("study.launching.display.time.monotonic", lambda: clock)
    stream, seen = io.StringIO(), [SEEN]
    with Screen(stream) as screen:
        screen.phase("starting Ray")
        screen.follow(lambda: seen[-1])
        seen.append(replace(SEEN, num_done=4, num_waiting=3))
        screen.tick()
        clock += SECONDS_BETWEEN_LINES
        screen.tick()
        screen.tick()
        screen.end()
    assert stream.getvalue().splitlines() == ["study: starting Ray", *(s.text() for s in seen)]


def test_screen_quiet_shows_only_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    with Screen(stream, quiet=True) as screen:
        screen.phase("starting Ray")
        screen.follow(lambda: SEEN)
        screen.remark("node n2 is lost")
        screen.end()
    assert stream.getvalue() == ""
    assert capsys.readouterr().err == "study: node n2 is lost\n"


_TERMINAL_CLOSES = """
import sys
from study.launching.display import Screen
screen = Screen()
screen.phase("first")
print("shown", flush=True)
sys.stdin.readline()
screen.phase("second")
screen.remark("third")
screen.rest()
print("done")
"""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_screen_on_a_terminal_that_closes_goes_on(term: str) -> None:
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _TERMINAL_CLOSES],
        env=environment(TERM=term),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    assert process.stdout is not None and process.stdout.readline() == "shown\n"
    os.close(master)
    output, _ = process.communicate("\n")
    assert (process.returncode, output) == (0, "done\n")
