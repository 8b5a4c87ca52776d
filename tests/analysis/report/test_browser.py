"""The report in a browser: no error, no network, no horizontal scrolling, accessible, with tooltips.

Needs Chromium; skipped without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from analysis import load, report
from tests import synthetic

WIDTHS = {"desktop": 1280, "phone": 375}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


def chromium() -> str:
    """Return its path: CHROMIUM, or a usual name on Linux."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("Chromium is missing: apt-get install chromium, or set CHROMIUM to its path")
    return found


@dataclass
class Shown:
    """An open page, the browser's messages and its requests."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    axes: dict[str, Any] = {"source_tasks": ("near", "far"), "seeds": (0, 1, 2)}
    synthetic.write(root, synthetic.small(num_epochs=6, controls=True, **axes))
    return report.write_report(
        load.open_study(root), tmp_path_factory.mktemp("report"), question="Does it?"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium with a temporary profile."""
    path = chromium()
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: the extra test")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(params=[(size, scheme) for size in WIDTHS for scheme in ("light", "dark")])
def shown(request: pytest.FixtureRequest, browser: Any, written: Path) -> Iterator[Shown]:
    size, scheme = request.param
    context = browser.new_context(
        viewport={"width": WIDTHS[size], "height": 900}, color_scheme=scheme
    )
    one = Shown(context.new_page())
    one.page.on("console", lambda message: one.messages.append(f"{message.type}: {message.text}"))
    one.page.on("pageerror", lambda error: one.messages.append(str(error)))
    one.page.on("request", lambda request: one.requests.append(request.url))
    one.page.goto(written.as_uri())
    yield one
    context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_page_in_a_browser_works(shown: Shown, written: Path) -> None:
    page = shown.page
    wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1], "the page scrolls sideways"
    answer, first = (page.locator(name).first.bounding_box() for name in ("header", "#first"))
    assert answer["y"] + answer["height"] <= min(first["y"], page.viewport_size["height"])
    plates = page.locator(".plate")
    assert plates.count() == page.locator("img").count()
    for i in range(plates.count()):
        style = plates.nth(i).evaluate(
            "plate => [plate.scrollWidth > plate.clientWidth, getComputedStyle(plate).backgroundColor, "
            "getComputedStyle(plate.querySelector('img')).filter]"
        )
        # On a phone each figure scrolls in its own box. In dark mode its card stays white and its colours
        # stay as drawn, so an open marker means the same as in its legend.
        assert style == [wide[1] < 600, "rgb(255, 255, 255)", "none"]
    images = page.locator("figure img, #first img")
    assert images.count() == page.locator("img").count() > 4
    for i in range(images.count()):
        assert images.nth(i).evaluate("img => img.complete && img.naturalWidth > 0"), i

    _check_tooltips(page)
    _check_curves_of_points(page)

    violations = pytest.importorskip("axe_playwright_python.sync_playwright").Axe().run(page)
    assert not violations.response["violations"], violations.generate_report()
    assert shown.messages == []
    outside = [url for url in shown.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [written.as_uri()]


def _check_tooltips(page: Any) -> None:
    tip, texts = page.locator("#tip"), set()
    images = page.locator("img[data-hover]")
    assert images.count() == page.locator("img").count()
    for i in range(images.count()):
        image = images.nth(i)
        panels = image.evaluate("img => JSON.parse(img.dataset.hover)")
        left, top, width, height = panels[0]["box"]
        image.scroll_into_view_if_needed()
        box = image.bounding_box()
        middle = (left + width / 2) * box["width"], (top + height / 2) * box["height"]
        image.hover(position={"x": middle[0], "y": middle[1]})
        assert tip.is_visible(), f"figure {i} has no tooltip"
        assert any(digit in tip.inner_text() for digit in "0123456789"), tip.inner_text()
        frame = tip.bounding_box()
        assert frame["x"] >= 0 and frame["x"] + frame["width"] <= page.viewport_size["width"]
        texts.add(tip.inner_text())
    assert len(texts) > 1
    page.mouse.move(1, 1)
    assert tip.is_hidden()


def _check_curves_of_points(page: Any) -> None:
    """By the pointer, then by the keyboard."""
    image, title = page.locator("#first img").first, page.locator("#cell-name")
    image.scroll_into_view_if_needed()
    panels = image.evaluate("img => JSON.parse(img.dataset.hover)")
    box, drawn, names = image.bounding_box(), set(), set()
    for panel in panels[::2]:  # the train error is in every second one
        left, top, width, height = panel["box"]
        for series in panel["series"]:
            for at, value, cut in zip(series["at"], series["y"][0], panel["x"], strict=True):
                up = (value - panel["low"]) / (panel["high"] - panel["low"])
                image.hover(
                    position={
                        "x": (left + at * width) * box["width"],
                        "y": (top + (1 - up) * height) * box["height"],
                    }
                )
                names.add(title.inner_text())
                assert title.inner_text() == f"{cut}, {series['name']}, {panel['name']}"
                drawn.add(page.locator("#cell-curves polyline.test.mean").get_attribute("points"))
                assert page.locator("#cell-curves polyline.test.one").count() == 3  # seeds
    assert len(drawn) == len(names) > 4
    page.locator("#first .canvas").first.focus()
    for key in ("ArrowLeft", "ArrowUp"):
        before = title.inner_text()
        page.keyboard.press(key)
        assert title.inner_text() != before
    for key in ("ArrowRight", "ArrowDown"):
        for _ in range(len(names)):
            page.keyboard.press(key)
    assert title.inner_text() in names
    chosen, plate = (
        page.locator(name).first.bounding_box() for name in (".chosen", "#first .plate")
    )
    assert plate["x"] <= chosen["x"] < chosen["x"] + chosen["width"] <= plate["x"] + plate["width"]
