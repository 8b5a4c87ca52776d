"""Check the fields of frozen dataclasses, write them as canonical JSON, and read them back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

Plain = str | int | float | bool | None

_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(plain: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values have equal texts.

    Raises ValueError for a number that is not finite.
    """
    return _CANONICAL.encode(plain)


def digest_of(text: str | bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def canonical(value: Any) -> Plain:
    """Return the value; whole floats become ints (0.0 becomes 0).

    Raises ValueError for anything but None, str, bool, int and finite floats.
    """
    plain: Plain = value
    if value is None or type(value) in (str, bool, int):
        return plain
    if type(value) is float and math.isfinite(value):
        return int(value) if value.is_integer() else value
    raise ValueError(f"{value!r} ({type(value).__name__}) is not a plain value")


def plain_value(value: Any) -> Any:
    """Return a scalar of NumPy, pandas or torch as a Python value; return other values unchanged.

    A float of fewer than 64 bits becomes the number that `str` shows: np.float32(0.1) becomes 0.1.
    """
    if type(value) in (str, int, float, bool) or value is None:
        return value
    if not callable(getattr(value, "item", None)) or getattr(value, "shape", None) != ():
        return str(value) if isinstance(value, str) else value
    plain = value.item()
    is_short = isinstance(plain, float) and 1 < getattr(value, "itemsize", 8) < 8
    if is_short and math.isfinite(plain) and not hasattr(value, "requires_grad"):
        return float(str(value))
    return float(plain) if type(plain) not in (str, int, float, bool) else plain


def make_plain(owner: Any) -> None:
    """Convert all fields of a frozen dataclass by `plain_value`. Called in its `__post_init__`."""
    for name, value in tuple(vars(owner).items()):
        plain = plain_value(value)
        if plain is not value:
            object.__setattr__(owner, name, plain)


def known_fields(
    owner: str, plain: Any, names: Iterable[str], later: Mapping[str, Plain]
) -> dict[str, Any]:
    """Return the fields of the JSON object `plain`; missing fields get their value in `later`.

    Raises ValueError if `plain` is not an object, or if other fields are missing or unknown.
    """
    if not isinstance(plain, dict):
        raise ValueError(f"{owner}: {plain!r} is not a JSON object")
    unknown, missing = set(plain) - set(names), set(names) - set(plain) - set(later)
    if unknown or missing:
        raise ValueError(
            f"{owner} from JSON: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}"
        )
    return {**later, **plain}


def check_choice(owner: str, name: str, given: Any, choices: Iterable[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if type(given) is not str or given not in choices:
        raise ValueError(f"{owner}.{name}={given!r}: choose one of {', '.join(choices)}")


def check_int(owner: str, name: str, given: Any, *, low: int, high: int | None = None) -> None:
    """Raise ValueError unless the value is an int (not a bool) within these bounds."""
    if type(given) is not int or given < low or (high is not None and given > high):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(
            f"{owner}.{name}={given!r}: must be a whole number, {bounds}{_kind(given)}"
        )


def check_number(
    owner: str,
    name: str,
    given: Any,
    *,
    low: float,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raise ValueError unless the value is a finite int or float within these bounds."""
    inside = (
        type(given) in (int, float)
        and math.isfinite(given)
        and (given > low if low_open else given >= low)
        and (given < high if high_open else given <= high)
    )
    if not inside:
        least = "above" if low_open else "at least"
        most = "below" if high_open else "at most"
        bounds = f"{least} {low:g}" + (f", {most} {high:g}" if math.isfinite(high) else "")
        raise ValueError(
            f"{owner}.{name}={given!r}: must be a finite number, {bounds}{_kind(given)}"
        )


def _kind(given: Any) -> str:
    """Return the end of an error message about a bool or a string; "" for other types."""
    if type(given) is bool:
        return "; a bool is no number"
    return "; remove the quotes" if isinstance(given, str) else ""
