"""Shared fixtures: a store with prepared digits, an S3 server, image sets."""

import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from study import tasks
from study.store import Store, open_store
from tests import s3_server
from tests.image_files import pixels_of, save

# Tests of images run without torch, too (.ci/run).
if importlib.util.find_spec("torch"):
    import torch

    # Tiny tensors over several threads are slower than over one, the more so on a busy machine.
    torch.set_num_threads(1)

# In processes that the tests start, too, our old names are errors (pyproject.toml: filterwarnings).
os.environ["PYTHONWARNINGS"] = ",".join(
    f"error:{package}.:DeprecationWarning" for package in ("study", "analysis")
)

# A busy machine is no failure.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` a file's tests share a process and its fixtures; one Ray at a time."""
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def features_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the features of frozen layers, also of processes that tests start; and one for the
    user's cache.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("features")
        patch.setenv("STUDY_FEATURES", str(folder))
        patch.setenv("STUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="session")
def prepared_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with only the prepared digits tasks; tests must not write to it."""
    root = tmp_path_factory.mktemp("prepared")
    for name in ("digits", "digits-low", "digits-high"):
        tasks.prepare(tasks.BUILTIN[name], open_store(root), None, progress=False)
    return root


@pytest.fixture
def store(prepared_digits: Path, tmp_path: Path) -> Store:
    """A fresh store in which the digits tasks are prepared."""
    shutil.copytree(prepared_digits, tmp_path / "store")
    return open_store(tmp_path / "store")


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    """An empty store."""
    return open_store(tmp_path / "empty")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data directory with a tree of 3 × 10 images, 6×4 pixels, of 3 classes."""
    for label, name in enumerate(("ant", "bee", "cow")):
        for number in range(10):
            save(tmp_path / "photos" / name / f"{number}.png", pixels_of(label * 10 + number))
    return tmp_path


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real S3 server on loopback, with an empty bucket."""
    if not s3_server.IS_INSTALLED:
        pytest.skip("needs moto's S3 server: pip install 'moto[server]'")
    with s3_server.moto_server() as port:
        yield port


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server accepts any credentials, but there must be some."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")


@pytest.fixture
def proxy(s3_port: int) -> Iterator[s3_server.Proxy]:
    """A proxy between a client and the S3 server, which can change requests and answers."""
    proxy = s3_server.Proxy(s3_port)
    yield proxy
    proxy.close()


@pytest.fixture
def bucket(proxy: s3_server.Proxy, s3_credentials: None) -> Store:
    """A new store behind the proxy."""
    return open_store(s3_server.root(proxy.port, uuid.uuid4().hex))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real image sets; the test is skipped if it is missing."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("STUDY_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real image sets at {folder} (set STUDY_TEST_DATA)")
    return folder
