"""A drawn SVG as the page shows it: small, and dark where the page is dark.

Owns which colour stands for which on a dark plate. A heat map's colours, and the marks on it, stay what
they are: what is lighter there is a higher error in both.
"""

from __future__ import annotations

import colorsys
import re
from typing import Final

from analysis.plots import style

DARK_PLATE: Final = "#1c1f24"  # --paper of report.css in the dark
_DARK: Final = {
    style.PAPER: DARK_PLATE,
    style.INK: "#e7e9ec",
    style.FAINT: "#a5acb6",
    style.ABSENT: "#2b2f36",
    style.MARK: style.MARK,
    style.MARK_HALO: style.MARK_HALO,
}
_COLOUR: Final = re.compile(r"\b(fill|stroke)(: |=\")(#[0-9a-f]{6})")
_NUMBER: Final = re.compile(r"-?\d+\.\d{3,}")
_PLACE: Final = re.compile(r'\b(?:d|x|y|points)="[^"]*"')
_STYLE: Final = re.compile(r'\bstyle="([^"]*)"')
_LETTER: Final = re.compile(r"\s*\b([MLQCz])\s*")
_NEEDLESS: Final = re.compile(
    r'<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', re.DOTALL
)


def plate(svg: str) -> str:
    """The same picture with its colours as variables, of which a dark page has others.

    Places are rounded to a hundredth of a point, which no screen shows; a style that many marks have is
    written once.
    """
    colours: dict[str, None] = {}
    styles: dict[str, str] = {}

    def variable(found: re.Match[str]) -> str:
        name, between, colour = found.groups()
        colours[colour] = None
        value = f"{name}: var(--{colour[1:]})"
        # A variable is not read in an attribute, only in a style.
        return value if between == ": " else f'style="{value}'

    def named(found: re.Match[str]) -> str:
        return f'class="{styles.setdefault(found[1], f"s{len(styles)}")}"'

    def place(found: re.Match[str]) -> str:
        text = _NUMBER.sub(_rounded, found[0])
        return _LETTER.sub(r"\1", text) if text.startswith("d=") else text

    text = _PLACE.sub(place, _NEEDLESS.sub("", svg).strip())
    text = _STYLE.sub(named, _COLOUR.sub(variable, text))
    text = re.sub(r"\s*\n\s*", "\n", text)
    light = "".join(f"--{colour[1:]}:{colour};" for colour in colours)
    dark = "".join(f"--{colour[1:]}:{in_the_dark(colour)};" for colour in colours)
    rules = "".join(f".{name}{{{style}}}" for style, name in styles.items())
    style = f"svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}"
    head = '<style type="text/css">'
    assert head in text
    return text.replace(head, f"{head}{style}{rules}", 1)


def in_the_dark(colour: str) -> str:
    """What stands for a colour on a dark plate: hue and order of lightness stay, none is too dark."""
    if colour in _DARK:
        return _DARK[colour]
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    lighter = colorsys.hls_to_rgb(hue, 0.45 + 0.5 * lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in lighter)


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
