"""The results that come along: today's code finds in their rows what the registered code found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import load
from analysis.claims import claims
from analysis.claims.registration import RULES
from analysis.load.export import kept_names, kept_path, kept_verdicts
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


# RULES under which the bundled verdicts were made.
RULES_OF_BUNDLED = 1


@pytest.mark.parametrize("name", kept_names())
def test_verdicts_recomputed_under_the_same_rules_equal_the_bundled_ones(name: str) -> None:
    assert RULES == RULES_OF_BUNDLED, "RULES was raised: bundle the verdicts of the new rules"
    study = opened(name)
    found = tables.verdicts(claims(study, **RELATED.get(name, {})))
    kept = kept_verdicts(name)
    assert kept is not None
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
