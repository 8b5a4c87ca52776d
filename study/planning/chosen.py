"""Some Runs of a study, chosen by where they stand in its grid: 'frozen=8,9,seed=0'.

Owns that little grammar, and that a Run's starts come along. Trains and looks at nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from study.fields import Plain
from study.messages import UserError, did_you_mean
from study.run import COORDINATES, Run


def chosen_ids(given: str, runs: Sequence[Run]) -> frozenset[str]:
    """Ids of the Runs whose coordinates have these values, and of the starts that they need.

    `given`: a coordinate, "=", a value, further values after commas; then the next coordinate. Raises
    UserError, with the choices, for a coordinate or a value that no Run has, and where none has all.
    """
    wanted = _parsed(given)
    of = {coordinate.name: coordinate.of for coordinate in COORDINATES}
    for name, values in wanted.items():
        if name not in of:
            near = did_you_mean(name, of)
            raise UserError(f"--only={given}: {name}: choose one of {', '.join(of)}{near}")
        there = list(dict.fromkeys(map(of[name], runs)))
        for value in values:
            if not any(_is(each, value) for each in there):
                shown = list(map(_shown, sorted(there, key=_order)))
                near = did_you_mean(value, shown)
                raise UserError(
                    f"--only={given}: {name}={value}: choose of {', '.join(shown)}{near}"
                )
    chosen = [
        run
        for run in runs
        if all(any(_is(of[name](run), v) for v in values) for name, values in wanted.items())
    ]
    if not chosen:
        raise UserError(f"--only={given}: no Run has all of these together")
    ids = set()
    for run in chosen:
        needed: Run | None = run
        while needed is not None:
            ids.add(needed.id)
            needed = needed.source
    return frozenset(ids)


def _parsed(given: str) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    name = ""
    for part in given.split(","):
        before, equals, value = part.rpartition("=")
        name = before.strip() if equals else name
        if not name or not value.strip():
            raise UserError(f"--only={given}: write it as in 'frozen=8,9,seed=0'")
        wanted.setdefault(name, []).append(value.strip())
    return wanted


def _is(value: Plain, text: str) -> bool:
    if isinstance(value, int | float):
        try:
            return value == float(text)
        except ValueError:
            return False
    return _shown(value) == text


def _shown(value: Plain) -> str:
    return "none" if value is None else f"{value}"


def _order(value: Plain) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if isinstance(value, int | float) else 0.0, _shown(value)
