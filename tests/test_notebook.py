"""The notebook in tests/examples runs in a kernel."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from analysis import load

NOTEBOOK = Path(__file__).parent / "examples" / "first_study.ipynb"


@pytest.mark.slow
def test_notebook_runs_from_grid_to_verdict(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [
        [out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
        for cell in code
    ]
    number, plan, ran, status, surface, _, verdict = ("".join(each) for each in texts)
    assert number == "12"
    assert "12 absent" in plan
    assert "12 done" in ran
    assert "'done': 12" in status
    assert "frozen" in surface
    assert re.search(r"^(holds|does not hold|cannot tell): ", verdict, re.MULTILINE), verdict
    study = load.open_study(tmp_path / "store", "three-cuts")
    assert len(study.wanted) == len(study.runs) == 12
