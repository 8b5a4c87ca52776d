"""Fixtures of many tests: a store with the digits prepared, and where real image sets may lie."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from study import tasks
from study.store import Store, open_store

# Tiny tensors over several threads are slower than over one, the more so on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds the prepared digits tasks and nothing else; not to be written to."""
    root = tmp_path_factory.mktemp("prepared")
    for name in ("digits", "digits-low", "digits-high"):
        tasks.prepare(tasks.BUILTIN[name], open_store(root), None, progress=False)
    return root


@pytest.fixture
def store(prepared_digits: Path, tmp_path: Path) -> Store:
    """A fresh store in which the digits tasks are prepared."""
    shutil.copytree(prepared_digits, tmp_path / "store")
    return open_store(tmp_path / "store")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real image sets; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("STUDY_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real image sets at {folder} (set STUDY_TEST_DATA)")
    return folder
