"""The results that come along: today's code finds in their rows what the registered code found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import load
from analysis.claims import claims
from analysis.load.kept import kept_names, kept_path, kept_verdicts
from analysis.load.rows import ExportRows
from analysis.report import make_report, tables
from analysis.results.__main__ import differences, main

README = Path(__file__).parents[2] / "README.md"
RELATED = {
    "reduced": {"more_related": "tiny-near-16px", "less_related": "tiny-far-16px"},
}


def opened(name: str) -> load.Study:
    path = kept_path(name)
    assert path is not None
    return load.open(path)


def test_seven_studies_come_along() -> None:
    beside = ("controls", "densenet", "noise", "rates", "sources", "vit")
    assert kept_names() == ("reduced", *(f"reduced_{name}" for name in beside))


@pytest.mark.parametrize("name", ["reduced_densenet", "reduced_vit"])
def test_a_kept_registration_lies_before_the_first_row(name: str) -> None:
    study = opened(name)
    assert isinstance(study.rows, ExportRows) and study.rows.registrations
    (registration,) = study.rows.registrations
    assert not registration.is_late
    assert registration.registered_at < study.runs["began_at"].min()
    assert registration.run_ids == tuple(run.id for run in study.wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", kept_names())
def test_the_verdicts_are_those_of_the_registered_code(name: str) -> None:
    study = opened(name)
    found = tables.verdicts(claims(study, **RELATED.get(name, {})))
    kept = kept_verdicts(name)
    assert kept is not None
    numbers = ["effect", "low", "high"]
    found, kept = (table[table["kind"] == "primary"] for table in (found, kept))
    assert list(found["claim"]) == list(kept["claim"])
    assert list(found["answer"]) == list(kept["answer"])
    pd.testing.assert_frame_equal(
        found[numbers].astype(float).reset_index(drop=True),
        kept[numbers].astype(float).reset_index(drop=True),
        check_exact=False,
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", kept_names())
def test_each_holds_the_runs_that_its_space_asks_for(name: str) -> None:
    from study.planning.spaces import load_space

    study = opened(name)
    assert [run.id for run in study.wanted] == [run.id for run in load_space(name).runs]
    assert study.coverage["done"] == len(study.wanted)


def test_the_readme_says_what_the_files_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(README)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("**0.803**", "**0.813**"),
        ("between 1,490 and 2,650", "between 1,490 and 4,970"),
        ("| C4 freezing-wise double descent, near the edge | holds |", "| C4 | cannot tell |"),
        ("(1,920 Runs", "(1,921 Runs"),
    ],
)
def test_a_readme_that_says_something_else_is_noticed(
    said: str, instead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = README.read_text(encoding="utf-8")
    assert said in text
    changed = tmp_path / "README.md"
    changed.write_text(text.replace(said, instead), encoding="utf-8")
    assert main(["--check", str(changed)]) == 1
    assert instead in capsys.readouterr().err
    assert main([str(tmp_path / "none.md")]) == 2


def test_a_last_place_may_be_rounded_otherwise() -> None:
    assert not differences("0.803 in 1,720 Runs [−0.1, 2.5]", "0.804 in 1,720 Runs [−0.1, 2.4]")
    assert differences("0.803", "0.805")
    assert differences("0.80", "0.803")
    assert differences("1,720 Runs", "1,721 Runs")
    assert differences("one\ntwo", "one")


@pytest.mark.slow
def test_a_study_whose_results_came_along_needs_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_report("store", "reduced_rates") == 0
    out, err = capsys.readouterr()
    assert "store has no study reduced_rates: this is of the results that came along" in err
    assert Path(out.splitlines()[-1]).read_text(encoding="utf-8").count("reduced_rates")
    assert make_report("store", "resnet") == 2
