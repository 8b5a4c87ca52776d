"""The report shows what predictions tell where they are kept, and says where they cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import load, surfaces
from analysis.report import slices, tables, write_report
from study.store import open_store
from tests.analysis.surfaces.test_disagreement import write


@pytest.mark.slow
def test_predictions_have_their_picture_and_table(tmp_path: Path) -> None:
    write(tmp_path / "store", seeds=2)
    study = load.open_study(tmp_path / "store")
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert 'id="predictions"' in page and "Disagreement of seeds, from near" in page
    assert "net variance" not in page
    table = pd.read_csv(tmp_path / "report" / "tables" / "predictions.csv")
    last = surfaces.disagreement(study, squeeze=True)
    assert np.allclose(table["disagreement"], last["disagreement"].values.ravel())
    assert np.allclose(table["spread"] ** 2, last["measured"].values.ravel())
    assert (table["num_seeds"] == 2).all()


@pytest.mark.slow
def test_a_task_that_is_gone_is_said_and_nothing_else_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "store", seeds=2)
    open_store(tmp_path / "store").remove("tasks/target.arrow")
    study = load.open_study(tmp_path / "store")
    found = tables.disagreements(study, slices.slices(study))
    assert not found.found and len(found.unread) == 1
    page = write_report(study, tmp_path / "report").read_text(encoding="utf-8")
    assert "Not read: target" in page and "study prepare target" in page
    assert not (tmp_path / "report" / "tables" / "predictions.csv").exists()
