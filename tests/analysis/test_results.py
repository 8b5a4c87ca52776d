"""The results that come along: today's code finds in their rows what the registered code found."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis import load
from analysis.claims.registration import LOST_REGISTRATIONS, RULES
from analysis.load.export import FOLDER, kept_names, kept_path, kept_verdicts
from analysis.load.rows import ExportRows
from analysis.report import make_report
from analysis.results.__main__ import main
from analysis.results.kept import fixed, verdicts

README = Path(__file__).parents[2] / "README.md"


def opened(name: str) -> load.Study:
    path = kept_path(name)
    assert path is not None
    return load.open_study(path)


def test_kept_names_are_those_of_both_series() -> None:
    first = ("controls", "densenet", "noise", "rates", "sources", "vit")
    second = (
        "densenet_fast",
        "epochs",
        "epochs_cifar",
        "far_source",
        "fast",
        "heads",
        "lengths",
        "penalty",
        "source_errors",
        "vit_fast",
    )
    names = [f"reduced_{name}" for name in first + second]
    assert kept_names() == ("reduced", *sorted(names))


@pytest.mark.parametrize("name", sorted(set(kept_names()) - set(LOST_REGISTRATIONS)))
def test_a_kept_registration_lies_before_the_first_cell(name: str) -> None:
    study = opened(name)
    assert isinstance(study.rows, ExportRows) and study.rows.registrations
    (registration,) = study.rows.registrations
    assert not registration.is_late
    cells = study.runs[study.runs["arm"] != "source"]  # studies may share sources
    assert registration.registered_at < cells["began_at"].min()
    assert registration.run_ids == tuple(run.id for run in study.wanted)


@pytest.mark.parametrize("name", kept_names())
def test_verdicts_recomputed_under_the_same_rules_equal_the_bundled_ones(name: str) -> None:
    found, kept = verdicts(name), kept_verdicts(name, RULES)
    assert kept is not None, "RULES was raised: run `python -m analysis.results`"
    numbers = ["effect", "low", "high", "num_seeds", "num_runs"]
    words = ["claim", "kind", "arm", "answer", "unit"]
    pd.testing.assert_frame_equal(found[words].fillna(""), kept[words].fillna(""))
    pd.testing.assert_frame_equal(
        found[numbers].astype(float),
        kept[numbers].astype(float),
        check_exact=False,
        rtol=1e-6,
        obj=f"{name}: verdicts under RULES={RULES}; raise RULES if the change is meant; table",
    )


@pytest.mark.parametrize("name", kept_names())
def test_each_holds_the_runs_that_its_space_asks_for(name: str) -> None:
    from study.planning.spaces import load_space

    study = opened(name)
    assert [run.id for run in study.wanted] == [run.id for run in load_space(name).runs]
    assert study.coverage["done"] == len(study.wanted)


def test_results_check_bundled_files_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_results_written_elsewhere_equal_the_bundled_ones(tmp_path: Path) -> None:
    assert main([], folder=tmp_path) == 0
    assert (tmp_path / "README.md").read_text("utf-8") == (FOLDER / "README.md").read_text("utf-8")
    assert main(["--check"], folder=tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "said", "instead"),
    [
        ("README.md", "**0.803**", "**0.804**"),
        ("README.md", "edge of interpolation | holds |", "edge of interpolation | cannot tell |"),
        ("README.md", "3,670 different Runs", "3,671 different Runs"),
        ("reduced.svg", "[330, 620,", "[330, 621,"),
    ],
)
def test_results_check_changed_file_fails(
    name: str, said: str, instead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in ("README.md", "reduced.svg"):
        shutil.copy(FOLDER / each, tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert said in text
    (tmp_path / name).write_text(text.replace(said, instead), encoding="utf-8")
    assert main(["--check"], folder=tmp_path) == 1
    (first, *_) = capsys.readouterr().out.splitlines()
    assert str(tmp_path / name) in first


def test_results_check_missing_files_fails(tmp_path: Path) -> None:
    assert main(["--check"], folder=tmp_path) == 1


def test_fixed_last_bit_differs_text_is_equal() -> None:
    border = 0.7685
    texts = {fixed(math.nextafter(border, to)) for to in (-math.inf, border, math.inf)}
    assert len(texts) == 1
    assert fixed(0.76851) == "0.769" and fixed(0.76849) == "0.768"
    assert fixed(-0.04, 1) == "0.0" and fixed(-0.06, 1) == "−0.1"


@pytest.mark.slow
def test_a_study_whose_results_came_along_needs_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_report("store", "reduced_rates") == 0
    out, err = capsys.readouterr()
    assert "store has no study reduced_rates: this report is on the bundled results" in err
    assert Path(out.splitlines()[-1]).read_text(encoding="utf-8").count("reduced_rates")
    assert make_report("store", "resnet") == 2
