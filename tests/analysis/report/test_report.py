"""The page: that it stands alone, says what is missing, and holds the numbers that were measured."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import __main__ as command
from analysis import load, report, surfaces
from analysis.load.export import kept_path
from analysis.report import overview, slices, tables
from study.run import Recipe, Run
from study.store import open_store, similarity
from study.store.similarity import PLACES, Similarity
from study.store.studies import write_study
from tests import synthetic


def small(**axes: object) -> list[Run]:
    return synthetic.small(num_epochs=6, **axes)


def tiny() -> list[Run]:
    return small(source_tasks=("near",), seeds=(0,), frozen=(4,))


ANSWER = re.compile(
    r"Lowest test error of the transfer after the last epoch, with 1,000 training images: nothing frozen "
    r"from near, 0\.\d+ ± 0\.\d+ on held-out seeds \(head only .*, chance 0\.900\)\. Whether the test "
    r"error descends twice as fewer layers are frozen is open \(claim C4: cannot tell\)\."
)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    synthetic.write(root, small(controls=True))
    return root


@pytest.fixture(scope="module")
def written(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    return report.write_report(load.open_study(whole), out, question="Does <it>?\n\nIn full.")


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open
    return page


@pytest.mark.slow
def test_the_page_stands_alone(written: Path) -> None:
    page = page_of(written)
    assert page.all("img")
    assert all(str(img["src"]).startswith("data:image/") for img in page.all("img"))
    assert not page.all("source")
    assert not any("loading" in img for img in page.all("img"))
    assert not page.all("link")
    assert all("src" not in script for script in page.all("script"))
    assert not re.search(r"url\(|@import|https?://", written.read_text(encoding="utf-8"))
    for link in page.all("a"):
        target = str(link["href"])
        if target.startswith("data:text/csv;base64,"):
            saved = written.parent / "tables" / str(link["download"])
            assert base64.b64decode(target.split(",")[1]) == saved.read_bytes()
        else:
            assert target.startswith("#"), target


@pytest.mark.slow
def test_the_page_can_be_heard_as_well_as_seen(written: Path) -> None:
    page = page_of(written)
    assert page.all("html") == [{"lang": "en"}]
    assert all(len(str(img["alt"])) > 40 for img in page.all("img"))
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_question_is_text_and_nothing_else(written: Path) -> None:
    assert "Does <it>?" in page_of(written).text
    assert "Does &lt;it&gt;?" in written.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_rows_make_the_same_bytes(whole: Path, written: Path, tmp_path: Path) -> None:
    again = report.write_report(load.open_study(whole), tmp_path, question="Does <it>?\n\nIn full.")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".html", ".csv", ".png", ".svg", ".pdf"}
    for path in files:
        assert (again.parent / path).read_bytes() == (written.parent / path).read_bytes(), path


@pytest.mark.slow
def test_every_arm_is_in_the_table_of_final_errors(whole: Path, written: Path) -> None:
    table = pd.read_csv(written.parent / "tables" / "final_errors.csv")
    study = load.open_study(whole)
    assert table["num_wanted"].sum() == len(study.wanted)
    assert set(table["arm"]) == set(study.cells["arm"])
    surface = surfaces.at_epoch(study).squeeze(drop=True)
    for _, cell in table[table["arm"] == "transfer"].iterrows():
        seeds = surface.sel({name: cell[name] for name in ("source_task", "size", "frozen")}).values
        assert cell["num_seeds"] == 2
        assert cell["test_error"] == pytest.approx(seeds.mean())
        assert cell["test_error_standard_error"] == pytest.approx(seeds.std(ddof=1) / np.sqrt(2))


def test_a_cell_of_the_table_says_mean_error_seeds_and_interpolation(tmp_path: Path) -> None:
    runs = small(source_tasks=("near",), sizes=(250,), frozen=(0, 4, 9), seeds=(0, 1, 2))
    cells = [run for run in runs if run.source]
    lost = [run for run in cells if (run.frozen == 4 and run.seed > 0) or run.frozen == 9]
    synthetic.write(tmp_path, runs, absent=lost)
    study = load.open_study(tmp_path, partial=True)
    (part,) = slices.slices(study)
    table = tables.by_frozen(tables.final_errors(study, 1.0), part)
    (texts,) = table.to_numpy().tolist()
    # A line breaks at plain spaces only: between the mean and the rest.
    assert [name.split(" (")[0] for name in table.columns] == [
        "head only",
        "4 layers frozen",
        "nothing frozen",
    ]
    assert texts[0] == "absent"
    assert re.fullmatch(r"0\.\d{3} \(1\xa0of\xa03\)\xa0•", texts[1])
    assert re.fullmatch(r"0\.\d{3} ±\xa00\.\d{3}\xa0•", texts[2])


@pytest.mark.slow
def test_a_pointer_is_told_the_values_of_the_surface(whole: Path, written: Path) -> None:
    page = page_of(written)
    told = [json.loads(str(img["data-hover"])) for img in page.all("img") if "data-hover" in img]
    assert len(told) == len(page.all("img"))
    freezing = next(panels for panels in told if panels[0].get("yName") == "training images")
    surface = surfaces.at_epoch(load.open_study(whole), source_task="near")
    mean = surface.mean("seed").squeeze(drop=True).transpose("size", "frozen")[:, ::-1]
    assert np.array(freezing[0]["test"]) == pytest.approx(mean.values, abs=1e-4)
    assert freezing[0]["y"] == ["250", "1,000"]
    assert freezing[0]["right"] == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-3)
    epochs = next(panels for panels in told if panels[0].get("right") and panels[0]["x"][1] == "1")
    assert epochs[0]["x"] == ["0", "1", "2", "3", "4", "5", "6"]
    assert epochs[0]["right"][-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_pointer_is_told_the_values_of_the_curves(whole: Path, written: Path) -> None:
    told = [json.loads(str(img["data-hover"])) for img in page_of(written).all("img")]
    curves = next(panels for panels in told if panels[0].get("xName") == "epoch")
    assert curves[0]["values"] == ["test error", "train error"]
    surface = surfaces.over_epochs(load.open_study(whole), source_task="near", size=250)
    mean = surface.mean("seed").squeeze(drop=True).transpose("frozen", "epoch")[::-1]
    for series, frozen in zip(curves[0]["series"], mean["frozen"].values, strict=True):
        assert series["name"].startswith(str(mean["cut"].sel(frozen=frozen).item()))
        assert series["y"][0] == pytest.approx(mean.sel(frozen=frozen).values, abs=1e-4)
        assert series["at"] == sorted(series["at"]) and 0 <= series["at"][0] < series["at"][-1] <= 1
    under = next(panel for panel in curves if panel["values"][0] == "train error")
    assert under["box"][1] > curves[0]["box"][1]


@pytest.mark.slow
def test_page_epoch_curves_are_those_of_the_seeds(whole: Path, written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="curves">(.*?)</script>', text, re.S)
    assert found
    told = json.loads(found[1])
    surface = surfaces.over_epochs(load.open_study(whole)).squeeze(drop=True)
    assert len(told["panels"]) == surface.sizes["size"]
    for panel, size in zip(told["panels"], surface["size"].values, strict=True):
        for line, source in zip(panel, ("near", "far"), strict=True):
            own = surface.sel(size=size, source_task=source).sortby("frozen", ascending=False)
            packed = np.frombuffer(base64.b64decode(line["test"]), "<u2") / told["scale"]
            assert line["name"] == source
            assert line["epochs"] == own["epoch"].values.tolist()
            shape = (own.sizes["frozen"], len(told["seeds"]), -1)
            expected = own.transpose("frozen", "seed", "epoch").values
            assert packed.reshape(shape) == pytest.approx(expected)


@pytest.mark.slow
def test_page_answer_comes_first_then_curves_then_map_then_claims(written: Path) -> None:
    page = page_of(written)
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert ids[:3] == ["first", "verdicts", "study"]
    pictures = [str(img["alt"]) for img in page.all("img")]
    assert pictures[0].startswith("Test error over trained parameters")
    assert pictures[1].startswith("Training images × trained parameters")
    first = next(tag for tag, _ in page.tags if tag in ("h1", "h2", "img", "section", "table"))
    assert first == "h1"
    heading = re.search("<h1.*?>(.*)</h1>", written.read_text(encoding="utf-8"))
    assert heading is not None
    assert ANSWER.fullmatch(heading[1])
    assert (
        page.text.index("Open: ")
        < page.text.index("Six terms")
        < page.text.index("Primary contrasts")
    )


@pytest.mark.slow
def test_an_incomplete_study_needs_the_word_and_says_so_first(tmp_path: Path) -> None:
    runs = small()
    cells = [run for run in runs if run.source]
    synthetic.write(
        tmp_path / "root", runs, absent=cells[:2], failed=cells[2:3], diverged=cells[3:5]
    )
    study = load.open_study(tmp_path / "root", partial=True)
    with pytest.raises(load.Incomplete):
        report.write_report(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    page = page_of(report.write_report(study, tmp_path / "out", partial=True))
    before_claims = page.text[: page.text.index("Primary contrasts")]
    assert f"So far ({len(runs) - 3} of {len(runs)} Runs): Lowest " in before_claims
    assert f"Partial: 3 of {len(runs)} Runs" in before_claims
    assert "2 Runs diverged" in before_claims
    for run in cells[:5]:
        assert run.id in page.text
    assert "absent" in page.text


def test_a_study_without_a_single_row_has_a_page(tmp_path: Path) -> None:
    runs = small()
    synthetic.write(tmp_path / "root", runs, absent=runs)
    study = load.open_study(tmp_path / "root", partial=True)
    page = page_of(report.write_report(study, tmp_path / "out", partial=True))
    assert "No cell of the study has a value to draw yet" in page.text


def test_few_seeds_are_warned_of(tmp_path: Path) -> None:
    synthetic.write(tmp_path, small(seeds=(0,)))
    (warning,) = overview.warnings(load.open_study(tmp_path))
    assert "1 seed: no spread" in warning


@pytest.mark.parametrize(("trainer", "is_warned_of"), [(1, False), (2, True)])
def test_warnings_rows_of_two_trainers_are_named_and_two_code_versions_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: int, is_warned_of: bool
) -> None:
    runs = small(source_tasks=("near",))
    synthetic.write(tmp_path / "root", runs[:4], name="first")
    plain = synthetic.provenance

    def newer(run: Run, *args: object) -> object:
        made_by = plain(run, *args)  # type: ignore[arg-type]
        return replace(made_by, code_version="0.2.0", trainer=trainer)

    monkeypatch.setattr(synthetic, "provenance", newer)
    synthetic.write(tmp_path / "root", runs[4:], name="second")
    write_study(open_store(tmp_path / "root"), "both", runs)
    study = load.open_study(tmp_path / "root", "both")
    warned = any("2 versions of the code" in warning for warning in overview.warnings(study))
    assert warned == is_warned_of
    assert sum(tables.provenance(study)["trainer"].values()) == len(runs)
    assert tables.provenance(study)["code version"] == {
        "0.2.0": len(runs) - 4,
        "0.1.0+synthetic": 4,
    }
    assert tables.provenance(study)["packages"] == {"timm 0.0, torch 0.0": len(runs)}


@pytest.mark.slow
def test_sizes_that_were_evaluated_at_different_epochs_are_drawn_each_at_its_own(
    tmp_path: Path,
) -> None:
    recipe = Recipe(num_steps=40, evaluation="log_spaced", num_evaluations=8)
    synthetic.write(tmp_path / "root", small(recipe=recipe, source_tasks=("near",)))
    study = load.open_study(tmp_path / "root")
    errors = slices.over_epochs(study, slices.slices(study)[0].lines[0])
    assert errors["test_error"].isnull().any()
    assert report.write_report(study, tmp_path / "out").is_file()


@pytest.mark.slow
def test_networks_are_set_beside_each_other(tmp_path: Path) -> None:
    synthetic.write(
        tmp_path / "root", small(widths=(4, 8), source_tasks=("near",), sizes=(250,), frozen=(0, 9))
    )
    page = page_of(report.write_report(load.open_study(tmp_path / "root"), tmp_path / "out"))
    assert "Networks beside each other" in page.text


@pytest.mark.slow
@pytest.mark.parametrize(("capacity", "is_drawn"), [(1e4, True), (1.0, False)])
def test_capacity_figure_is_drawn_if_any_size_is_interpolated(
    tmp_path: Path, capacity: float, is_drawn: bool
) -> None:
    runs = synthetic.small(num_epochs=400, source_tasks=("near",), frozen=(0, 9))
    synthetic.write(tmp_path / "root", runs, truth=synthetic.Truth(capacity=capacity))
    study = load.open_study(tmp_path / "root")
    (line,) = slices.slices(study)[0].lines
    assert slices.capacity_pairs(study, line, ["logme"], 0.1) == {}
    for number, run in enumerate(run for run in runs if run.source):
        measured = [
            Similarity(
                place=place,
                num_images=run.size,
                num_classes=10,
                num_features=8,
                logme=0.1 * number,
                linear_cka=0.5,
                linear_cka_debiased=0.4,
                effective_rank=2.5,
            )
            for place in PLACES
        ]
        table = similarity.table_of(run, "a" * 64, measured, "0.1.0")
        similarity.publish(open_store(tmp_path / "root"), run, table)
    page = page_of(report.write_report(study, tmp_path / "out"))
    assert ("Effective capacity against similarity" in page.text) == is_drawn


def test_one_size_one_seed_and_nothing_frozen_is_enough_for_a_page(tmp_path: Path) -> None:
    runs = [Run(task="t", size=250, model="resnet18", width=8, recipe=Recipe(num_epochs=4), seed=0)]
    synthetic.write(tmp_path / "root", runs)
    page = page_of(report.write_report(load.open_study(tmp_path / "root"), tmp_path / "out"))
    assert "1 seed" in page.text
    assert page.all("img")


def test_lines_of_a_slice_are_told_apart(whole: Path) -> None:
    (part,) = slices.slices(load.open_study(whole))
    assert [line.label for line in part.lines] == [
        "near",
        "far",
        "same task",
        "no source",
        "near, new above",
    ]
    assert [line.is_control for line in part.lines] == [False, False, True, True, True]
    end = slices.at_the_end(load.open_study(whole), part.lines)
    assert end["test_error"].notnull().all()
    assert end["wanted"].all()


def test_coverage_counts_every_wanted_run(whole: Path) -> None:
    study = load.open_study(whole)
    counts = tables.coverage(study)
    assert counts.loc["all", "wanted"] == len(study.wanted)
    assert counts.loc["all", "done"] == len(study.wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["report", "synthetic", "--root", "{root}", "--out", "{out}"], 0, "index.html"),
        (["report", "synthetik", "--root", "{root}"], 2, "did you mean 'synthetic'?"),
        (["report", "any", "--root", "{out}/nowhere"], 2, "nowhere"),
        (["report", "{out}/nowhere.parquet"], 2, "nowhere.parquet: No such file"),
        (["report", "{root}"], 2, "the store by --root"),
        (["report", "synthetic.py"], 2, "give the study's name, synthetic"),
        (["reprot"], 2, "did you mean 'report'?"),
        (["report"], 2, "Missing argument 'SPACE'; see python -m analysis report --help"),
        (["report", "--help"], 0, "--more-related"),
        (
            ["export", "synthetic", "{here}/study.parquet", "--root", "{root}"],
            0,
            "21 rows of 3 Runs",
        ),
        (["export", "other", "{out}/study.parquet", "--root", "{root}"], 2, "synthetic"),
        (["export", "synthetic", "x.parquet", "--root", "{out}/nowhere"], 2, "nowhere"),
        (["export", "synthetic", "{out}/study.xlsx", "--root", "{root}"], 2, ".parquet or .csv"),
    ],
)
def test_the_command_says_what_it_did_or_why_not(
    words: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    synthetic.write(tmp_path / "root", tiny())
    given = [
        word.format(root=tmp_path / "root", out=tmp_path / "out", here=tmp_path) for word in words
    ]
    assert command.main(given) == status
    shown = capsys.readouterr()
    assert said in shown.out + shown.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty file", "export of another study", "root"])
def test_study_name_that_is_also_a_path_is_the_study_of_the_store(
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


@pytest.mark.slow
def test_study_whose_runs_diverge_before_their_second_row_is_reported(tmp_path: Path) -> None:
    root, runs = tmp_path / "root", small(seeds=(0, 1), sizes=(250,), frozen=(0, 9))
    cells = [run for run in runs if run.source is not None and run.frozen == 0]
    synthetic.write(root, runs, diverged=cells)  # of 7 rows the first stays
    page = page_of(report.write_report(load.open_study(root), tmp_path / "out"))
    assert f"{len(cells)} of {2 * len(cells)} Runs diverged." in page.text
    errors = pd.read_csv(tmp_path / "out" / "tables" / "final_errors.csv")
    assert errors["num_diverged"].sum() == len(cells)
    assert page.text.count("diverged") > page.text.count("Runs diverged") + len(cells)


@pytest.mark.slow
def test_the_command_refuses_what_is_incomplete_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tiny()
    synthetic.write(tmp_path / "root", runs, absent=runs[-1:])
    root, out = tmp_path / "root", tmp_path / "out"
    assert report.make_report(root, out=out) == 1
    said = capsys.readouterr().err
    assert "--partial" in said and "partial=True" not in said
    assert report.make_report(root, out=out, partial=True) == 0
    assert (tmp_path / "out" / report.PAGE).is_file()


@pytest.mark.slow
def test_every_claim_has_its_verdict_on_the_page(written: Path) -> None:
    page = page_of(written)
    table = pd.read_csv(written.parent / "tables" / "verdicts.csv")
    primary = table[table["kind"] == "primary"]
    assert list(primary["claim"]) == ["C1", "C2", "C3", "C4", "C5a", "C5b"]
    verdicts = page.text[page.text.index("Primary contrasts") :]
    for _, line in primary.iterrows():
        assert line["claim"] in verdicts
        assert line["answer"] in verdicts
    assert len(page.all("details")) >= 6


@pytest.mark.slow
def test_the_command_prints_the_verdicts_then_the_path(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["report", "synthetic", "--root", str(whole), "--out", str(tmp_path)]
    assert command.main([*given, "--more-related", "near"]) == 0
    sentence, *lines, standing, last = capsys.readouterr().out.splitlines()
    assert ANSWER.fullmatch(sentence)
    assert standing == "exploratory: The study was not registered before its first row."
    # Without the points of the answer and the reasons beneath the verdicts.
    lines = [line for line in lines if not line.startswith((" ", "- "))]
    assert last == str(tmp_path / report.PAGE)
    table = pd.read_csv(tmp_path / "tables" / "verdicts.csv")
    primary = table[table["kind"] == "primary"]
    assert [line.split()[0] for line in lines] == list(primary["claim"])
    for line, answer, effect in zip(lines, primary["answer"], primary["effect"], strict=True):
        assert f"  {answer}  " in line
        assert np.isnan(effect) or f"  {effect:+.3f} ".replace("-", "−") in line


def test_a_source_that_is_not_there_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nowhere'.*far, near"):
        report.write_report(load.open_study(whole), tmp_path / "out", more_related="nowhere")
    assert not (tmp_path / "out").exists()
    assert report.make_report(whole, less_related="nowhere") == 2


def test_what_cannot_be_written_or_is_damaged_is_said_in_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "out")
    root = ["--root", str(whole)]
    assert command.main(["report", "synthetic", "--out", below, *root]) == 1
    assert command.main(["export", "synthetic", f"{below}.parquet", *root]) == 1
    assert command.main(["export", "synthetic", str(tmp_path), *root]) == 1
    shutil.copytree(whole, tmp_path / "damaged")
    (tmp_path / "damaged" / "studies" / "synthetic.json").write_text("{")
    damaged = ["--root", str(tmp_path / "damaged")]
    assert command.main(["export", "synthetic", "x.parquet", *damaged]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("study: ") for line in lines)
    assert lines[0].startswith(f"study: {tmp_path}/file: File exists; ")
    assert lines[1].startswith(f"study: {tmp_path}/file: File exists; ")
    assert lines[2].startswith(f"study: {tmp_path}: Is a directory; ")
    assert "studies/synthetic.json is damaged" in lines[3]


@pytest.mark.slow
def test_report_of_sources_without_a_common_cell_is_written(tmp_path: Path) -> None:
    near = small(source_tasks=("near",), sizes=(250,), frozen=(0, 8, 9), label_noises=(0.2,))
    far = small(source_tasks=("far",), sizes=(1_000,), frozen=(0, 8, 9), label_noises=(0.0, 0.2))
    synthetic.write(tmp_path / "root", [*near, *far])
    page = page_of(report.write_report(load.open_study(tmp_path / "root"), tmp_path / "out"))
    assert "far minus near, after the last epoch" in page.text
