"""Which errors are worth another try, and how often it is made."""

from __future__ import annotations

import errno

import pytest

from study.store.errors import WAITS, tried, waits_for


@pytest.mark.parametrize(
    ("number", "num_waits"),
    [
        (errno.ESTALE, len(WAITS)),
        (errno.ENOSPC, 3),
        (errno.EROFS, 3),
        (errno.EFBIG, 0),
        (errno.EACCES, 0),
    ],
)
def test_a_directorys_errors(number: int, num_waits: int) -> None:
    error = OSError(number, "told")
    assert waits_for(error, WAITS) == WAITS[:num_waits]


@pytest.mark.parametrize("num_failing", [0, 2, 3, 4])
def test_tried_as_often_as_there_are_waits(num_failing: int) -> None:
    calls = 0

    def once() -> str:
        nonlocal calls
        calls += 1
        if calls <= num_failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return "written"

    if num_failing <= 3:
        assert tried("write", "a/b", (0.0,) * 5, once) == "written"
        assert calls == num_failing + 1
    else:
        with pytest.raises(OSError, match=r"cannot write \(4 tries\): No space.*a/b") as raised:
            tried("write", "a/b", (0.0,) * 5, once)
        assert raised.value.errno == errno.ENOSPC


def test_what_is_absent_is_told_at_once() -> None:
    def once() -> None:
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        tried("read", "x", (60.0,), once)
