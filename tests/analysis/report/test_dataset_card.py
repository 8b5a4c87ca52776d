"""A published study: the hub's library reads the folder, and its card describes it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from analysis import load
from analysis.report.dataset_card import publish
from study.cli.main import main
from study.store import Registration, open_store
from study.store.studies import add_registration
from tests import synthetic

SPACE = '''"""Does <it> descend twice: "yes" or "no"?"""

DATA = "/home/alice/images"
RUNS = []
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    runs = synthetic.small(num_epochs=4, source_tasks=("near",))
    synthetic.write(root, runs, name="asked", absent=runs[-1:])
    registered = Registration(
        registered_at="2026-11-01T00:00:00+00:00", is_late=False, run_ids=(), terms={}
    )
    add_registration(open_store(root), "asked", registered)
    return root


def test_publish_folder_is_read_by_the_datasets_library(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "set"
    assert main(["publish", "asked", str(folder), "--root", str(root)]) == 2
    assert "--licence: missing. Choose the licence" in capsys.readouterr().err
    licensed = ["--licence", "cc-by-4.0", "--root", str(root)]
    assert main(["publish", "asked", str(folder), *licensed]) == 0
    shown = capsys.readouterr()
    study = load.open_study(root, "asked", partial=True)
    num_rows = study.read(["test_error"]).num_rows
    assert f"{num_rows:,} rows of {len(study.runs)} Runs, licence cc-by-4.0" in shown.out
    assert "1 Runs have no rows yet" in shown.err
    assert {path.name for path in folder.iterdir()} == {"README.md", "data"}

    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"] and found["train"].num_rows == num_rows
    table = pq.read_table(folder / "data" / "rows.parquet")
    assert found["train"].column_names == table.column_names
    for name in ("run_id", "arm", "frozen", "test_error"):
        assert list(found["train"][name]) == table[name].to_pylist(), name
    # It is the same study, without the names of hosts.
    published = load.open_study(folder / "data" / "rows.parquet", partial=True)
    assert published.name == "asked"
    assert set(published.runs["host"]) == {""} != set(study.runs["host"])


def test_publish_card_describes_origin_and_columns(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    publish(open_store(root), "asked", folder, question="Does <it>?", space=SPACE, licence="mit")
    card = (folder / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n", 2)[1])
    assert front["license"] == "mit" and front["pretty_name"] == "asked"
    (config,) = front["configs"]
    assert config["data_files"] == [{"split": "train", "path": "data/rows.parquet"}]
    assert "Does <it>?" in card
    text = (folder / "space.py").read_text(encoding="utf-8")
    assert text == SPACE.replace("/home/alice/images", "…/images")
    study = load.open_study(root, "asked", partial=True)
    assert f"{len(study.runs)} of the {len(study.cells)} Runs of its search space have rows" in card
    (version,) = study.runs["code_version"].unique()
    assert f"- code version: {version}\n" in card
    assert "- registered 2026-11-01T00:00:00+00:00 (" in card
    columns = pq.read_schema(folder / "data" / "rows.parquet")
    for column in columns:
        meaning = column.metadata[b"meaning"].decode()
        assert f"| `{column.name}` | " in card and f" | {meaning} |" in card


def test_publish_into_a_used_folder_changes_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("mine")
    assert main(["publish", "asked", str(tmp_path), "--licence", "mit", "--root", str(root)]) == 2
    assert "something is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"
