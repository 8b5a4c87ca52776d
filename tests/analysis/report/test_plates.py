"""A picture on the page: the same marks, and colours that can be seen on a dark plate too."""

from __future__ import annotations

import re

import pytest
from matplotlib.colors import to_rgb

from analysis.plots import style
from analysis.report import plates

SVG = """<?xml version="1.0"?>
<svg xmlns="x">
 <metadata>who</metadata>
 <defs>
  <style type="text/css">*{stroke-linejoin: round}</style>
 </defs>
 <g id="patch_1">
  <path d="M 0.123456 10
L 532.8 -0.987654 z
" style="fill: #ffffff"/>
  <rect x="1.0004" fill="#eef0f2"/>
  <path d="M 1 2" transform="scale(0.015625)" style="stroke: #1b1e23; fill: #ffffff"/>
 </g>
</svg>"""


def test_colours_are_variables_and_places_are_short() -> None:
    text = plates.plate(SVG)
    assert "M0.12 10L532.8 -0.99z" in text
    assert "scale(0.015625)" in text
    assert "metadata" not in text and "id=" not in text
    light, dark = re.findall(r"svg\{(.*?)\}", text)
    assert "--ffffff:#ffffff;" in light and f"--ffffff:{plates.DARK_PLATE};" in dark
    named = dict(re.findall(r"\.(s\d+)\{(.*?)\}", text))
    used = re.findall(r'class="(s\d+)"', text)
    assert [named[name] for name in used] == [
        "fill: var(--ffffff)",
        "fill: var(--eef0f2)",
        "stroke: var(--1b1e23); fill: var(--ffffff)",
    ]


def luminance(colour: str) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


SERIES = [*style.OKABE_ITO, *style.frozen_colours(range(12)).values(), style.FAINT]


@pytest.mark.parametrize("colour", SERIES)
def test_every_colour_of_a_curve_shows_on_a_dark_plate(colour: str) -> None:
    # WCAG 2.2, 1.4.11: graphics have a contrast of 3 at least.
    bright, ground = luminance(plates.in_the_dark(colour)), luminance(plates.DARK_PLATE)
    assert (bright + 0.05) / (ground + 0.05) >= 3


def test_marks_on_a_heat_map_stay_what_they_are() -> None:
    assert plates.in_the_dark(style.MARK) == style.MARK
    assert plates.in_the_dark(style.MARK_HALO) == style.MARK_HALO
