"""Run the scripts in tests/examples, and the reading code of analysis/README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest

from analysis import load, surfaces
from analysis.load import export
from study.store import open_store
from tests import synthetic
from tests.processes import run_python

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("examples")
    wanted = synthetic.runs(num_epochs=40, sizes=(250, 1_000), frozen=(0, 9), seeds=(0, 1))
    synthetic.write(root, wanted)
    export.export(open_store(root), "synthetic", root / "study.parquet")
    return root


def printed_by(name: str, *arguments: Path) -> str:
    """Run an example in a process of its own, and return what it prints."""
    out, _ = run_python(str(EXAMPLES / name), *map(str, arguments), folder=EXAMPLES.parents[1])
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example_store_and_export_print_the_same(name: str, root: Path) -> None:
    printed, of_export = (printed_by(name, source) for source in (root, root / "study.parquet"))
    assert printed == of_export
    assert len(printed.splitlines()) >= 4
    if name == "paper_table.py":
        final = 100 * surfaces.at_epoch(load.open_study(root), label_noise=0.2)
        cell = final.sel(source_task="near", source_size=5_000, size=1_000, frozen=9)
        assert f"{float(cell.mean()):.1f} ± " in printed
    if name == "own_curves.py":
        assert "over the widths: strong, peak at width 12" in printed
        assert "width 12, over the epochs: strong" in printed
        assert "width  2, over the epochs: none" in printed


def test_reading_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES.parents[1] / "analysis" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    ours = next(block for block in blocks if 'load.open_study("store"' in block)
    others = next(block for block in blocks if "duckdb.sql(" in block)
    # The study that the code reads, as small as it allows.
    wanted = synthetic.small(
        60, source_tasks=("near",), source_sizes=(500, 600), sizes=(60, 240), frozen=(0, 9)
    )
    synthetic.write(tmp_path / "store", wanted, name="quickstart")
    export.export(open_store(tmp_path / "store"), "quickstart", tmp_path / "quickstart.parquet")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(ours, names)  # the README is ours
    assert names["curves"].sizes["epoch"] == 61 and names["curves"].sizes["size"] == 1
    assert names["mean"].dims == tuple(dim for dim in names["final"].dims if dim != "seed")
    names |= {"pyarrow": pyarrow}
    names |= {name: pytest.importorskip(name) for name in ("duckdb", "polars")}
    *lines, last = others.strip().splitlines()
    exec("\n".join(lines), names)
    assert "avg(test_error)" in capsys.readouterr().out
    answer = eval(last, names)
    assert answer["frozen"].to_list() == [9, 0] and answer["num_seeds"].to_list() == [2, 2]
    # Without the arm, sources would be among the unfrozen Runs.
    held = names["mean"].squeeze().sel(source_size=600, size=240, frozen=[9, 0]).values.tolist()
    assert answer["test_error"].to_list() == pytest.approx(held)
    (query,) = re.findall(r"(SELECT.*?)\"\"\"", others, re.DOTALL)
    rows = names["duckdb"].sql(query.format(**names)).fetchall()
    assert [row[1] for row in rows] == pytest.approx(held)
