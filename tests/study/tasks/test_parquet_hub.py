"""A task of the Hugging Face hub, downloaded by the hub's own library from a server on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from study.store import Store, open_store
from study.tasks import HubImages, Task, describe
from tests.image_files import parquet, pixels_of, prepare_quietly

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Mirror:
    """The files of a server, and the paths of its requests."""

    files: dict[str, bytes]
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    has = Mirror({"README.md": b"# set"})
    sizes = {"train-00000-of-00002": 10, "train-00001-of-00002": 6, "test-00000-of-00001": 4}
    for name, size in sizes.items():
        labels = [row % 2 for row in range(size)]
        file = parquet(tmp_path / "made" / f"{name}.parquet", labels, ["ant", "bee"])
        has.files[f"plain/{file.name}"] = file.read_bytes()

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            has.requests.append(path)
            about = "/api/datasets/some/birds"
            file = path.removeprefix(f"/datasets/some/birds/resolve/{COMMIT}/")
            if path in (about, f"{about}/revision/{COMMIT}", f"{about}/revision/main"):
                siblings = [{"rfilename": name} for name in has.files]
                self.answer({"id": "some/birds", "sha": COMMIT, "siblings": siblings})
            elif path == f"{about}/tree/{COMMIT}":
                about_file = {"type": "file", "size": 1, "oid": "0" * 40}
                self.answer([about_file | {"path": name} for name in has.files])
            elif file in has.files:
                self.answer(has.files[file])
            else:
                self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, content: object) -> None:
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(200)
            kind = "octet-stream" if isinstance(content, bytes) else "json"
            self.send_header("Content-Type", f"application/{kind}")
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("ETag", f'"{hashlib.sha256(payload).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    has.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", has.endpoint)
    yield has
    server.shutdown()
    server.server_close()
    thread.join()


def birds(**fields: object) -> Task:
    given = {"revision": COMMIT, **fields}
    return Task(name="birds", images=HubImages("some/birds", **given))  # type: ignore[arg-type]


def test_prepare_hub_set_downloads_once_and_reads_it_as_parquet_files(
    mirror: Mirror, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with pytest.raises(ValueError, match="`study prepare` downloads them"):
        describe(birds(), data)
    assert mirror.requests == [] and not data.exists()

    task = prepare_quietly(birds(), empty, data)
    assert task.info.classes == ("ant", "bee")
    assert (task.info.num_train, task.info.num_test) == (16, 4)
    assert task.train_labels.tolist() == [number % 2 for number in range(16)]
    in_order = [*range(10), *range(6)]  # of both files
    for image, row in zip(task.train_images, in_order, strict=True):
        assert (image.transpose(1, 2, 0) == pixels_of(row)).all()
    assert not any("/resolve/" in path and "README" in path for path in mirror.requests)

    # From now on without the hub, in another store as well.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    num_requests = len(mirror.requests)
    assert describe(birds(), data) == task.info
    again = prepare_quietly(birds(test=None), open_store(tmp_path / "other"), data)
    assert again.info.num_train + again.info.num_test == 16
    assert len(mirror.requests) == num_requests


def test_prepare_hub_branch_is_an_error_that_names_its_commit(
    mirror: Mirror, empty: Store, tmp_path: Path
) -> None:
    for branch in ("main", None):
        expected = rf"revision={branch!r}: give a commit, 40 hex.*It is {COMMIT} now"
        with pytest.raises(ValueError, match=f"task 'birds': {expected}"):
            prepare_quietly(birds(revision=branch), empty, tmp_path)
    with pytest.raises(ValueError, match=r"a tag moves: `study prepare` prints the current one$"):
        describe(birds(revision="main"), tmp_path)


def test_prepare_hub_set_that_is_unavailable_is_an_error_of_one_line(
    mirror: Mirror, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(**fields: object) -> str:
        with pytest.raises(ValueError) as raised:
            prepare_quietly(birds(**fields), empty, tmp_path)
        [line] = str(raised.value).splitlines()
        return line

    assert "train='*/valid-*': no file of some/birds matches, choose from" in message(
        train="*/valid-*"
    )
    absent = message(revision="f" * 40)
    assert "name='some/birds': cannot be downloaded from the hub (" in absent and "404" in absent
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert "refused" in message()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "this needs huggingface_hub, which is not installed here" in message()
    with pytest.raises(ValueError, match="as owner/name"):
        HubImages("../etc", revision=COMMIT)
