"""The report's page: self-contained, accessible, complete, and with the measured numbers."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import __main__ as command
from analysis import load, report, surfaces
from analysis.load.export import kept_path
from analysis.report import slices
from study.run import Recipe, Run
from study.store import open_store, similarity
from tests import synthetic
from tests.analysis.surfaces.test_disagreement import write
from tests.stored import a_similarity

QUESTION = "Does <it>?\n\nIn full."
ANSWER = re.compile(
    r"Lowest test error of the transfer after the last epoch, with 1,000 training images: nothing frozen "
    r"from near, 0\.\d+ ± 0\.\d+ on held-out seeds \(head only .*, chance 0\.900\)\. Whether the test "
    r"error descends twice as fewer layers are frozen is open \(claim C4: cannot tell\)\."
)


def small(**axes: object) -> list[Run]:
    return synthetic.small(num_epochs=6, **axes)


def tiny() -> list[Run]:
    return small(source_tasks=("near",), seeds=(0,), frozen=(4,))


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def tooltips(self) -> list[list[dict[str, Any]]]:
        """Return the panels of each figure."""
        return [json.loads(str(img["data-hover"])) for img in self.all("img")]


def reported(folder: Path, runs: list[Run], **options: Any) -> Page:
    """Write a study and its report into a folder; return the page."""
    synthetic.write(folder / "root", runs, **options)
    study = load.open_study(folder / "root", partial=True)
    return Page(report.write_report(study, folder / "out", partial=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    synthetic.write(root, small(controls=True))
    return root


@pytest.fixture(scope="module")
def written(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    study = load.open_study(whole)
    return report.write_report(study, out, question=QUESTION, more_related="near")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written)


@pytest.mark.slow
def test_page_is_self_contained(page: Page, written: Path) -> None:
    assert page.all("img")
    assert all(str(img["src"]).startswith("data:image/") for img in page.all("img"))
    assert not page.all("source") and not page.all("link")
    assert not any("loading" in img for img in page.all("img"))
    assert all("src" not in script for script in page.all("script"))
    assert not re.search(r"url\(|@import|https?://", page.html)
    for link in page.all("a"):
        target = str(link["href"])
        if target.startswith("data:text/csv;base64,"):
            saved = written.parent / "tables" / str(link["download"])
            assert base64.b64decode(target.split(",")[1]) == saved.read_bytes()
        else:
            assert target.startswith("#"), target
    # The question is text, not HTML.
    assert "Does <it>?" in page.text and "Does &lt;it&gt;?" in page.html


@pytest.mark.slow
def test_page_is_accessible(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert all(len(str(img["alt"])) > 40 for img in page.all("img"))
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_page_starts_with_the_answer_then_figures_then_claims(page: Page, written: Path) -> None:
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert ids[:3] == ["first", "verdicts", "study"]
    pictures = [str(img["alt"]) for img in page.all("img")]
    assert pictures[0].startswith("Test error over trained parameters")
    assert pictures[1].startswith("Training images × trained parameters")
    first = next(tag for tag, _ in page.tags if tag in ("h1", "h2", "img", "section", "table"))
    heading = re.search("<h1.*?>(.*)</h1>", page.html)
    assert first == "h1" and heading is not None
    assert ANSWER.fullmatch(heading[1])
    places = [page.text.index(text) for text in ("Open: ", "Six terms", "Primary contrasts")]
    assert places == sorted(places)
    table = pd.read_csv(written.parent / "tables" / "verdicts.csv")
    primary = table[table["kind"] == "primary"]
    assert list(primary["claim"]) == ["C1", "C2", "C3", "C4", "C5a", "C5b"]
    for text in (*primary["claim"], *primary["answer"]):
        assert text in page.text[places[-1] :]
    assert len(page.all("details")) >= 6


@pytest.mark.slow
def test_report_command_prints_verdicts_and_repeats_the_bytes(
    whole: Path, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["report", "synthetic", "--root", str(whole), "--out", str(tmp_path)]
    assert command.main([*given, "--more-related", "near", "--question", QUESTION]) == 0
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".html", ".csv", ".png", ".svg", ".pdf"}
    for path in files:
        assert (tmp_path / path).read_bytes() == (written.parent / path).read_bytes(), path
    sentence, *lines, status, last = capsys.readouterr().out.splitlines()
    assert ANSWER.fullmatch(sentence)
    assert status == "exploratory: The study was not registered before its first row."
    assert last == str(tmp_path / report.PAGE)
    # One line for each claim, without the reasons below it.
    lines = [line for line in lines if not line.startswith((" ", "- "))]
    table = pd.read_csv(tmp_path / "tables" / "verdicts.csv")
    primary = table[table["kind"] == "primary"]
    assert [line.split()[0] for line in lines] == list(primary["claim"])
    for line, answer, effect in zip(lines, primary["answer"], primary["effect"], strict=True):
        assert f"  {answer}  " in line
        assert np.isnan(effect) or f"  {effect:+.3f} ".replace("-", "−") in line


@pytest.mark.slow
def test_page_tables_equal_the_surfaces(whole: Path, written: Path, page: Page) -> None:
    study = load.open_study(whole)
    table = pd.read_csv(written.parent / "tables" / "final_errors.csv")
    assert table["num_wanted"].sum() == len(study.wanted)
    assert set(table["arm"]) == set(study.cells["arm"])
    surface = surfaces.at_epoch(study).squeeze(drop=True)
    for _, cell in table[table["arm"] == "transfer"].iterrows():
        seeds = surface.sel({name: cell[name] for name in ("source_task", "size", "frozen")}).values
        assert cell["num_seeds"] == 2
        assert cell["test_error"] == pytest.approx(seeds.mean())
        assert cell["test_error_standard_error"] == pytest.approx(seeds.std(ddof=1) / np.sqrt(2))
    best = pd.read_csv(written.parent / "tables" / "best_cuts.csv")
    near = best[(best["source"] == "near") & (best["size"] == 250)].iloc[0]
    cuts = near["cuts"].split("; ")
    alike = f" ({len(cuts)} of 3 cuts may be the best, {cuts[0]} to {cuts[-1]})"
    assert 'id="cuts"' in page.html
    assert f"{near['best_cut']}{alike if len(cuts) > 1 else ''}</td>" in page.html


@pytest.mark.slow
def test_page_tooltips_equal_the_surfaces(whole: Path, page: Page) -> None:
    study, found = load.open_study(whole), page.tooltips()
    freezing = next(panels for panels in found if panels[0].get("yName") == "training images")
    surface = surfaces.at_epoch(study, source_task="near")
    mean = surface.mean("seed").squeeze(drop=True).transpose("size", "frozen")[:, ::-1]
    assert np.array(freezing[0]["test"]) == pytest.approx(mean.values, abs=1e-4)
    assert freezing[0]["y"] == ["250", "1,000"]
    assert freezing[0]["right"] == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-3)
    epochs = next(panels for panels in found if panels[0].get("right") and panels[0]["x"][1] == "1")
    assert epochs[0]["x"] == ["0", "1", "2", "3", "4", "5", "6"]
    assert epochs[0]["right"][-1] == pytest.approx(1, abs=1e-3)

    curves = next(panels for panels in found if panels[0].get("xName") == "epoch")
    assert curves[0]["values"] == ["test error", "train error"]
    surface = surfaces.over_epochs(study, source_task="near", size=250)
    mean = surface.mean("seed").squeeze(drop=True).transpose("frozen", "epoch")[::-1]
    for series, frozen in zip(curves[0]["series"], mean["frozen"].values, strict=True):
        assert series["name"].startswith(str(mean["cut"].sel(frozen=frozen).item()))
        assert series["y"][0] == pytest.approx(mean.sel(frozen=frozen).values, abs=1e-4)
        assert series["at"] == sorted(series["at"]) and 0 <= series["at"][0] < series["at"][-1] <= 1
    under = next(panel for panel in curves if panel["values"][0] == "train error")
    assert under["box"][1] > curves[0]["box"][1]


def epoch_curves(page: Page) -> Any:
    found = re.search(
        r'<script type="application/json" id="curves">(.*?)</script>', page.html, re.S
    )
    assert found
    return json.loads(found[1])


@pytest.mark.slow
def test_page_first_point_is_of_a_line_of_its_panel(tmp_path: Path) -> None:
    path = kept_path("reduced_heads")  # each panel has a source of its own
    assert path is not None
    stored = epoch_curves(Page(report.write_report(load.open_study(path), tmp_path)))
    panel, line, _ = stored["start"]
    assert line < len(stored["panels"][panel]) == 1


@pytest.mark.slow
def test_page_epoch_curves_equal_those_of_the_seeds(whole: Path, page: Page) -> None:
    stored = epoch_curves(page)
    surface = surfaces.over_epochs(load.open_study(whole)).squeeze(drop=True)
    for panel, size in zip(stored["panels"], surface["size"].values, strict=True):
        for line, source in zip(panel, ("near", "far"), strict=True):
            own = surface.sel(size=size, source_task=source).sortby("frozen", ascending=False)
            packed = np.frombuffer(base64.b64decode(line["test"]), "<u2") / stored["scale"]
            assert line["name"] == source
            assert line["epochs"] == own["epoch"].values.tolist()
            expected = own.transpose("frozen", "seed", "epoch").values
            assert packed.reshape(expected.shape) == pytest.approx(expected)


@pytest.mark.slow
def test_report_incomplete_study_needs_partial_and_warns_first(tmp_path: Path) -> None:
    runs = small()
    cells = [run for run in runs if run.source]
    at_once = [run for run in cells[3:] if run.frozen == 0]  # diverge before their second row
    synthetic.write(tmp_path / "root", runs, absent=cells[:2], failed=cells[2:3], diverged=at_once)
    study, out = load.open_study(tmp_path / "root", partial=True), tmp_path / "out"
    with pytest.raises(load.Incomplete):
        report.write_report(study, out)
    assert not out.exists()
    page = Page(report.write_report(study, out, partial=True))
    before_claims = page.text[: page.text.index("Primary contrasts")]
    assert f"So far ({len(runs) - 3} of {len(runs)} Runs): Lowest " in before_claims
    assert f"Partial: 3 of {len(runs)} Runs" in before_claims
    assert f"{len(at_once)} Runs diverged" in before_claims
    assert all(run.id in page.text for run in (*cells[:3], *at_once))
    assert "absent" in page.text
    errors = pd.read_csv(out / "tables" / "final_errors.csv")
    assert errors["num_diverged"].sum() == len(at_once)


OWN_EPOCHS = Recipe(num_steps=40, evaluation="log_spaced", num_evaluations=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "text"),
    [
        # Two networks, and sizes that are evaluated at different epochs.
        (
            small(recipe=OWN_EPOCHS, widths=(4, 8), source_tasks=("near",), frozen=(0, 9)),
            "Networks beside each other",
        ),
        # Two sources without a common cell.
        (
            [
                *small(source_tasks=("near",), sizes=(250,), frozen=(0, 8, 9)),
                *small(source_tasks=("far",), frozen=(0, 8, 9), label_noises=(0.0, 0.2))[2:],
            ],
            "far minus near, after the last epoch",
        ),
    ],
)
def test_page_compares_networks_and_sources(runs: list[Run], text: str, tmp_path: Path) -> None:
    assert text in reported(tmp_path, runs).text


@pytest.mark.slow
@pytest.mark.parametrize(("capacity", "is_drawn"), [(1e4, True), (1.0, False)])
def test_page_has_capacity_over_similarity_if_any_size_is_fitted(
    tmp_path: Path, capacity: float, is_drawn: bool
) -> None:
    runs = synthetic.small(num_epochs=400, source_tasks=("near",))
    truth = synthetic.Truth(capacity=capacity)
    synthetic.write(tmp_path / "root", runs, truth=truth)
    study = load.open_study(tmp_path / "root")
    (line,) = slices.slices(study)[0].lines
    assert slices.capacity_pairs(study, line, ["logme"], 0.1) == {}
    for number, run in enumerate(run for run in runs if run.source):
        table = a_similarity(run, value=0.1 * number, debiased=0.4)
        similarity.publish(open_store(tmp_path / "root"), run, table)
    page = Page(report.write_report(study, tmp_path / "out"))
    assert ("Effective capacity against similarity" in page.text) == is_drawn


@pytest.mark.slow
def test_page_shows_predictions_or_why_they_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "store", seeds=2)
    study = load.open_study(tmp_path / "store")
    page = Page(report.write_report(study, tmp_path / "report"))
    assert 'id="predictions"' in page.html and "Disagreement of seeds, from near" in page.html
    table = pd.read_csv(tmp_path / "report" / "tables" / "predictions.csv")
    last = surfaces.disagreement(study, squeeze=True)
    assert np.allclose(table["disagreement"], last["disagreement"].values.ravel())
    assert np.allclose(table["spread"] ** 2, last["measured"].values.ravel())
    assert (table["num_seeds"] == 2).all()

    open_store(tmp_path / "store").remove("tasks/target.arrow")
    study = load.open_study(tmp_path / "store")
    page = Page(report.write_report(study, tmp_path / "without"))
    assert "Not read: target" in page.html and "study prepare target" in page.html
    assert not (tmp_path / "without" / "tables" / "predictions.csv").exists()


def test_page_of_smallest_studies_is_written(tmp_path: Path) -> None:
    one = Run(task="t", size=250, model="resnet18", width=8, recipe=Recipe(num_epochs=4), seed=0)
    page = reported(tmp_path / "one", [one])
    assert "1 seed" in page.text and page.all("img")
    one_size = reported(tmp_path / "size", small(source_tasks=("near",), sizes=(250,)))
    assert one_size.all("img")
    assert not any("Training images ×" in str(img["alt"]) for img in one_size.all("img"))
    runs = small()
    without_rows = reported(tmp_path / "none", runs, absent=runs)
    assert "No cell of the study has a value to draw yet" in without_rows.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["report", "synthetic", "--root", "{root}", "--out", "{out}"], 1, "--partial"),
        (
            ["report", "synthetic", "--root", "{root}", "--out", "{out}", "--partial"],
            0,
            "index.html",
        ),
        (["report", "synthetik", "--root", "{root}"], 2, "did you mean 'synthetic'?"),
        (["report", "any", "--root", "{out}/nowhere"], 2, "nowhere"),
        (["report", "{out}/nowhere.parquet"], 2, "nowhere.parquet: No such file"),
        (["report", "{root}"], 2, "the store by --root"),
        (["report", "synthetic.py"], 2, "give the study's name, synthetic"),
        (["reprot"], 2, "did you mean 'report'?"),
        (["report"], 2, "Missing argument 'SPACE'; see python -m analysis report --help"),
        (["report", "--help"], 0, "--more-related"),
        (
            ["report", "synthetic", "--root", "{root}", "--partial", "--less-related", "x"],
            2,
            "from near",
        ),
        (["export", "synthetic", "{here}/x.parquet", "--root", "{root}"], 0, "14 rows of 2 Runs"),
        (["export", "other", "{out}/study.parquet", "--root", "{root}"], 2, "synthetic"),
        (["export", "synthetic", "x.parquet", "--root", "{out}/nowhere"], 2, "nowhere"),
        (["export", "synthetic", "{out}/study.xlsx", "--root", "{root}"], 2, ".parquet or .csv"),
    ],
)
def test_command_prints_what_it_did_or_why_not(
    words: list[str],
    status: int,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tiny()
    synthetic.write(tmp_path / "root", runs, absent=runs[-1:])
    places = {"root": tmp_path / "root", "out": tmp_path / "out", "here": tmp_path}
    assert command.main([word.format(**places) for word in words]) == status
    shown = capsys.readouterr()
    assert text in shown.out + shown.err
    assert "partial=True" not in shown.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty file", "export of another study", "root"])
def test_command_study_name_that_is_also_a_path_is_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    root = "synthetic" if kind == "root" else "store"
    synthetic.write(Path(root), tiny())
    if kind == "empty file":
        Path("synthetic").touch()
    elif kind == "export of another study":
        path = kept_path("reduced_vit")
        assert path is not None
        shutil.copy(path, "synthetic")
    assert command.main(["report", "synthetic", "--root", root]) == 0
    assert "reports/synthetic/index.html" in capsys.readouterr().out
    assert command.main(["export", "synthetic", "x.parquet", "--root", root]) == 0
    assert load.open_study("x.parquet").name == "synthetic"


def test_command_unwritable_path_or_damaged_study_is_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    shutil.copytree(whole, tmp_path / "damaged")
    (tmp_path / "damaged" / "studies" / "synthetic.json").write_text("{")
    below, damaged = f"{tmp_path}/file/out", f"{tmp_path}/damaged"
    for root, words, text in (
        (whole, ["report", "synthetic", "--out", below], f"{tmp_path}/file: File exists; "),
        (whole, ["export", "synthetic", f"{below}.parquet"], f"{tmp_path}/file: File exists; "),
        (whole, ["export", "synthetic", str(tmp_path)], f"{tmp_path}: Is a directory; "),
        (damaged, ["export", "synthetic", "x.parquet"], ""),
    ):
        assert command.main([*words, "--root", str(root)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"study: {text}")
    assert "studies/synthetic.json is damaged" in line
