"""A task of the Hugging Face hub: a server on loopback answers what the hub's own library asks for."""

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
    """What the server has, by name, and the paths it was asked for."""

    files: dict[str, bytes]
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)


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
            has.asked.append(path)
            about = "/api/datasets/some/birds"
            file = path.removeprefix(f"/datasets/some/birds/resolve/{COMMIT}/")
            if path in (about, f"{about}/revision/{COMMIT}", f"{about}/revision/main"):
                siblings = [{"rfilename": name} for name in has.files]
                self.answer({"id": "some/birds", "sha": COMMIT, "siblings": siblings})
            elif path == f"{about}/tree/{COMMIT}":
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                    for name, content in has.files.items()
                ]
                self.answer(tree)
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


def test_a_data_set_is_downloaded_once_and_read_as_parquet_files_are(
    mirror: Mirror, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with pytest.raises(ValueError, match="`study prepare` downloads them"):
        describe(birds(), data)
    assert mirror.asked == [] and not data.exists()

    task = prepare_quietly(birds(), empty, data)
    assert (task.info.num_train, task.info.num_test) == (16, 4)
    assert task.info.classes == ("ant", "bee")
    assert task.train_labels.tolist() == [number % 2 for number in range(16)]
    for place, row in ((0, 0), (9, 9), (10, 0), (15, 5)):  # of both files, in their order
        assert (task.train_images[place].transpose(1, 2, 0) == pixels_of(row)).all()
    fetched = [path for path in mirror.asked if "/resolve/" in path]
    assert not any("README" in path for path in fetched)

    # From now on without the hub, in another store as well.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    num_asked = len(mirror.asked)
    assert describe(birds(), data) == task.info
    again = prepare_quietly(birds(test=None), open_store(tmp_path / "other"), data)
    assert again.info.num_train + again.info.num_test == 16
    assert len(mirror.asked) == num_asked


def test_a_branch_is_refused_with_the_commit_that_it_is(
    mirror: Mirror, empty: Store, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"task 'birds': revision='main': give a commit, 40 hex"
    ) as e:
        prepare_quietly(birds(revision="main"), empty, tmp_path)
    assert f"It is {COMMIT} now" in str(e.value)
    with pytest.raises(ValueError, match=rf"revision=None: give a commit.* It is {COMMIT} now"):
        prepare_quietly(birds(revision=None), empty, tmp_path)
    with pytest.raises(ValueError, match=r"a tag moves: `study prepare` prints the current one$"):
        describe(birds(revision="main"), tmp_path)


def test_what_cannot_be_had_is_one_line(
    mirror: Mirror, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fields, said in (
        (
            {"train": "*/valid-*"},
            r"train='\*/valid-\*': no file of some/birds matches, choose from",
        ),
        ({"revision": "f" * 40}, r"name='some/birds': cannot be downloaded from the hub \(.*404"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            prepare_quietly(birds(**fields), empty, tmp_path)
        assert "\n" not in str(error.value)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(ValueError, match=r"cannot be downloaded from the hub \(.*refused"):
        prepare_quietly(birds(), empty, tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="this needs huggingface_hub, which is not installed here"):
        prepare_quietly(birds(), empty, tmp_path)
    with pytest.raises(ValueError, match="as owner/name"):
        HubImages("../etc", revision=COMMIT)
