"""The verbs as a user calls them: wrong input gives status 2 and a message, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from study.cli import run
from study.cli.main import main
from study.cli.status import bytes_text
from study.planning.plan import make_plan
from study.planning.spaces import load_space
from study.store import Store, open_store, read_registrations
from study.store.layout import registration_path, study_path, unfinished_path
from study.store.provenance import TRAINER, code_version
from study.store.store import store_command, without_secrets
from study.store.studies import add_registration, write_study
from tests import s3_server
from tests.processes import run_python

SPACE = """\
'''Is a tiny study enough?

    axis   values
'''
from study.grid import grid
from study.run import Recipe

RUNS = grid(
    source_task="digits-low",
    source_size=40,
    target_task="digits-high",
    target_size=[30, 50],
    model="resnet18",
    width=1,
    frozen=[0, 9],
    seed=0,
    recipe=Recipe(num_epochs=2, batch_size=16, learning_rate=1e-3),
)
"""
FIXTURE = Path(__file__).parents[2] / "fixtures" / "store-every-kind"
Reject = Callable[..., str]


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only file of the current folder: a search space."""
    monkeypatch.chdir(tmp_path)
    for name in ("STUDY_ROOT", "STUDY_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    path = Path("tiny.py")
    path.write_text(SPACE)
    return path


@pytest.fixture
def rejected(capsys: pytest.CaptureFixture[str]) -> Reject:
    """Run a command that must be rejected and leave no store; return its messages."""

    def run_it(*words: str) -> str:
        assert main(words) == 2
        error = capsys.readouterr().err
        assert all(line.startswith("study: ") for line in error.splitlines())
        assert "Traceback" not in error
        assert not Path("store").exists()
        return error

    return run_it


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("[30, 50]", "[5000, 8000]", ["size=5000", "size=8000", "2 Runs", "717", "digits-high"]),
        ('"digits-high"', '"digits-hihg"', ["cifar10", "did you mean 'digits-high'?"]),
        ("frozen=[0, 9]", "frozen=[0, 10]", ["frozen=10", "10 layers", "0 to 9", "line 8"]),
        ('"resnet18"', '"resnet19"', ["'resnet19'", "resnet18", "line 8"]),
        ("width=1", "width=0", ["width=0", "line 8"]),
        ("num_epochs=2", "num_epochs=2, num_steps=3", ["num_epochs=2", "num_steps=3", "line"]),
        ("RUNS = grid(", "RUNS = gird(", ["NameError", "gird", "line 8"]),
        ("seed=0,", "seed=0", ["SyntaxError", "line"]),
        ("RUNS =", "RUN =", ["RUNS"]),
        ("RUNS = grid(", "RUNS = 2 * grid(", ["same Run", "study.grid.union"]),
        ('"digits-low"', '"cifar10"', ["(3, 16, 16)", "'cifar10' (3, 32, 32)"]),
    ],
)
def test_run_wrong_space_is_rejected(
    tiny: Path, rejected: Reject, old: str, new: str, parts: list[str]
) -> None:
    assert old in SPACE
    tiny.write_text(SPACE.replace(old, new))
    error = rejected("run", "tiny.py")
    assert [part for part in parts if part not in error] == [], error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "VERB is missing; see study --help"),
        ("run", "Missing argument 'SPACE'; see study run --help"),
        ("run tiny.py other.py", "unexpected extra argument(s) (other.py); see study run --help"),
        ("run tiny.py --adress auto", "No such option: --adress (Possible options: --address)"),
        ("run tiny.py --root", "Option '--root' requires an argument"),
        ("run tiny.py --inline --address auto", "--address=auto: not allowed with --inline"),
        ("status tiny.py --json --watch", "--watch: not allowed with --json"),
        ("run tiny.py --log wandbs", "tensorboard, wandb, mlflow; did you mean 'wandb'?"),
        ("run tiny.py --gpus-per-trial 1.5", "study: --gpus-per-trial=1.5: "),
        ("run tiny.py --gpus-per-trial many", "study: --gpus-per-trial=many: "),
        ("run tiny.py --max-concurrent 0", "study: --max-concurrent=0: "),
        ("run tiny.py --max-concurrent 1.5", "study: --max-concurrent=1.5: "),
        ("run tiny.py --cpus-per-trial 0", "study: --cpus-per-trial=0: "),
        ("run tiny.py --checkpoint-seconds -1", "study: --checkpoint-seconds=-1: "),
        ("run tiny.py --address ray://host:1", "study: --address=ray://host:1: "),
        ("plan tiny.py --root ftp2://nowhere", "root="),
        *((f"{verb} tiny.py --root=", "root='': choose") for verb in ("plan", "status", "report")),
        *((f"{verb} quikstart", "did you mean 'quickstart'?") for verb in ("plan", "status")),
        ("prepare digts", "did you mean 'digits'?"),
        ("statsu quickstart", "did you mean 'status'?"),
        ("plan missing.py", "no such file"),
        ("plan tiny", "give its name with .py"),
        ("new tiny.py", "exists already"),
        ("new birds", ".py"),
        ("new größe.py", "the file's name is the study's"),
    ],
)
def test_main_wrong_command_line_is_one_line(rejected: Reject, command: str, message: str) -> None:
    (line,) = rejected(*command.split()).splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("command", "environment", "message"),
    [
        ("run nowhere --inline", "auto", "SPACE=nowhere"),
        ("plan tiny.py --cpus-per-trial 1", "127.0.0.1:9", "study: RAY_ADDRESS=127.0.0.1:9"),
        ("run tiny.py --address 127.0.0.1:1", "auto", "study: --address=127.0.0.1:1"),
    ],
)
def test_main_wrong_address_is_named_with_its_source(
    rejected: Reject,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    environment: str,
    message: str,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment)
    assert message in rejected(*command.split())


@pytest.mark.parametrize("verb", ["plan", "run", "prepare"])
@pytest.mark.parametrize("root", ["/proc/nowhere", "file/store"])
def test_main_unwritable_root_is_rejected(rejected: Reject, verb: str, root: str) -> None:
    Path("file").touch()
    error = rejected(verb, "tiny.py", "--root", root)
    assert f"root={Path(root).absolute()}: " in error
    assert ("nothing can be written to /proc" in error) == (root == "/proc/nowhere")
    assert {path.name for path in Path().iterdir()} == {"file", "tiny.py"}


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_main_unwritable_report_is_rejected_before_training(rejected: Reject, verb: str) -> None:
    Path("reports").touch()
    problem = f"report=reports/tiny: {Path('reports').absolute()} is not a directory"
    assert problem in rejected(verb, "tiny.py")


@pytest.mark.parametrize("verb", ["plan", "run", "check"])
@pytest.mark.parametrize("name", ["my study.py", "größe.py"])
def test_main_invalid_study_name_is_rejected(
    tiny: Path, rejected: Reject, verb: str, name: str
) -> None:
    assert "the file's name is the study's" in rejected(verb, str(tiny.rename(name)))


def test_run_missing_images_name_the_task_and_the_folder(tiny: Path, rejected: Reject) -> None:
    tiny.write_text(
        SPACE.replace('target_task="digits-high"', 'target_task="mine"')
        + "from study.tasks import ImageFolderImages, Task\n"
        + 'TASKS = [Task(name="mine", images=ImageFolderImages(train="mine/train"))]\n'
    )
    error = rejected("run", "tiny.py", "--data", "nowhere")
    assert "nowhere" in error and "mine" in error


def test_run_only_without_a_matching_run_lists_the_values(rejected: Reject) -> None:
    assert "choose from 0, 9" in rejected("run", "tiny.py", "--quiet", "--only", "frozen=8")


def test_without_secrets_replaces_only_secrets() -> None:
    for line in (
        "study run x --root s3://AKIA:SECRET/def+g@bucket/f?region=x",
        "study run x '--root=s3://AKIA:SECRET/def+g@bucket/f@g'",
        "s3://key:SECRET@b/r and abfs://acc/c?client_secret=SECRET&tenant=x",
    ):
        assert "SECRET" not in without_secrets(line, "…") and "…@b" in without_secrets(line, "…")
    for line in ("s3://bucket/a@b", "/home/x@y/store", "gs://bucket/f?scheme=http&region=x"):
        assert without_secrets(line, "…") == line


def test_bytes_text_is_a_plain_number_with_a_unit() -> None:
    texts = [bytes_text(num) for num in (0, 5 * 2**10, 1_010 * 2**20, 3 * 2**30)]
    assert texts == ["0 KiB", "5 KiB", "1,010 MiB", "3 GiB"]


def test_store_command_keeps_a_root_that_is_not_the_default() -> None:
    assert store_command("verify", "tiny", root="./store") == "study verify tiny"
    assert store_command("verify", "my tiny", root="r") == "study verify 'my tiny' --root r"
    assert "secret" not in store_command("retry", "tiny", root="s3://key:secret@bucket/store")


def test_spaces_lists_bundled_spaces_and_readable_and_damaged_studies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = open_store("store")
    write_study(store, "whole", load_space("quickstart").runs)
    store.put(study_path("torn"), b"{")
    assert main(["spaces"]) == 0
    *bundled, torn, whole = capsys.readouterr().out.splitlines()
    (quickstart,) = (line for line in bundled if line.startswith("quickstart "))
    assert "88 Runs  Does the test error descend twice as fewer layers are frozen" in quickstart
    assert "? Runs  studies/torn.json is damaged" in torn
    assert "88 Runs  (a study in " in whole


def test_new_writes_a_short_space_that_has_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "birds.py", "--root", "nest"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("birds.py: 27 Runs")
    assert printed.endswith("then: study plan birds.py --root nest\n")
    assert len(Path("birds.py").read_text().splitlines()) <= 18
    planned = make_plan(load_space("birds.py"), open_store("store"), None)
    assert not planned.wrong and not planned.warnings
    assert planned.inventory.counts() == {"absent": 27}


def test_version_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"freezewise {code_version()}\n"


def test_status_watch_ends_when_all_runs_are_done_or_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FIXTURE, "store")
    assert main(["status", "every", "--watch"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("every: 2 Runs: 2 done")
    assert "to check the rows: study verify every" in printed

    waits: list[float] = []

    def interrupt_third(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt_third)
    assert main(["status", "tiny.py", "--watch"]) == 0
    assert len(waits) == 3
    assert capsys.readouterr().out.count("5 absent") == 1, "printed again without a change"


def test_plan_fewer_images_than_classes_is_a_warning(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(SPACE.replace("30, 50", "3, 50"))
    assert main(["plan", "tiny.py"]) == 0
    printed = capsys.readouterr().out
    problem = "task 'digits-high' has 5 classes, so some have no training image"
    assert f"warning: Run.size=3: {problem}" in printed
    assert "a process: Python and libraries" in printed


@pytest.mark.slow
def test_wrong_input_and_status_load_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from study.cli.main import main; "
        "assert main(['run', 'wrong.py']) == 2; assert main(['status', 'tiny.py']) == 0; "
        "print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    Path("wrong.py").write_text(SPACE.replace("30, 50", "30, 5000"))
    assert run_python("-c", code)[0].splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["directory", pytest.param("bucket", marks=pytest.mark.s3)])
def test_study_from_plan_to_export_works_on_every_kind_of_store(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(Path("store").absolute())
    if kind == "bucket":
        request.getfixturevalue("s3_credentials")
        root = s3_server.root(request.getfixturevalue("s3_port"), uuid.uuid4().hex)

    def output_of(*words: str, status: int = 0) -> str:
        assert main([*words, "--root", root]) == status
        return capsys.readouterr().out

    planned = output_of("plan", "tiny.py")
    assert "5 Runs, 1 of them are starts" in planned and "5 absent" in planned
    assert not open_store(root).listed("", recursive=True), "plan starts nothing"
    assert "digits-high: 717 training" in output_of("prepare", "tiny.py")
    page = Path(output_of("run", "tiny.py", "--inline").splitlines()[-1])
    assert "Is a tiny study enough?" in page.read_text()

    page.unlink()
    part = output_of("run", "tiny.py", "--inline", "--only", "frozen=9,size=30")
    assert part.startswith("2 of 2 Runs of --only=frozen=9,size=30, including starts, are done")
    assert not page.exists()

    status = json.loads(output_of("status", "tiny.py", "--json"))
    assert status["counts"]["done"] == 5
    assert len(status["code_versions"]) == 1
    assert status["trainers"] == {str(TRAINER): 5}
    cell = list(status["states"])[-1]
    shown = output_of("show", cell[:8])
    assert f"rows/{cell}.arrow" in shown and "digits-low n=40 → digits-high" in shown
    output_of("show", "no-id", status=2)
    run_line = shlex.join(["study", "run", "tiny.py", "--root", root])
    assert f"the next `{run_line}` tries 0 Runs again" in output_of("retry", "tiny.py")

    import pyarrow.parquet as pq

    output_of("export", "tiny.py", "all.parquet")
    assert pq.read_table("all.parquet").num_rows == 5 * 3
    output_of("report", "tiny.py", "--out", "elsewhere")
    assert Path("elsewhere/index.html").is_file()


@pytest.mark.slow
def test_register_after_the_first_row_is_late(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["register", "tiny.py"]) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"tiny: registered at \S+: [0-9a-f]{12}, of 5 Runs\n", printed)
    assert main(["register", "tiny.py"]) == 0
    assert "already registered at" in capsys.readouterr().out
    store = open_store("store")
    (noted,) = read_registrations(store, "tiny")
    assert not noted.is_late and len(noted.run_ids) == 5

    # A registration of 0.1.0 stored a digest of RULES 1: the study is registered by today's RULES.
    in_0_1_0 = {**noted.terms, "code": "9d0ac35d"}
    for name in ("rules", "SEARCH", "NEAR_FACTOR"):
        del in_0_1_0[name]
    store.remove(registration_path("tiny"))
    add_registration(store, "tiny", replace(noted, terms=in_0_1_0))
    assert main(["register", "tiny.py"]) == 0
    assert "already registered at" not in capsys.readouterr().out
    terms = [one.terms for one in read_registrations(store, "tiny")]
    assert terms == [in_0_1_0, noted.terms]

    monkeypatch.setattr(run, "write_report", lambda *_, **__: 0)
    assert main(["run", "tiny.py", "--inline"]) == 0
    tiny.write_text(SPACE.replace("seed=0", "seed=[0, 1]"))
    assert main(["register", "tiny.py"]) == 0
    assert "registered too late: target rows already exist" in capsys.readouterr().err
    is_late = [one.is_late for one in read_registrations(store, "tiny")]
    assert is_late == [False, False, True]


@pytest.mark.slow
def test_run_failed_source_is_named_and_trained_again_after_retry(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source cannot record that it began: a folder is at the path of the record."""

    def output_of(*words: str, status: int = 0) -> tuple[str, str]:
        assert main([*words, "--root", store.root]) == status
        return capsys.readouterr()

    source = next(iter(json.loads(output_of("status", "tiny.py", "--json")[0])["states"]))
    obstacle = Path(store.root, unfinished_path(source, "began.json", 1))  # of the first driver
    obstacle.mkdir(parents=True)
    (obstacle / "in the way").touch()

    _, error = output_of("run", "tiny.py", "--inline", status=1)
    assert f"failed: {source}" in error and "4 tries" in error
    assert error.count("start failed") == 4
    assert "study retry tiny.py" in error

    _, error = output_of("run", "tiny.py", "--inline", status=1)
    assert "running" not in error, "retried although nobody asked for it"
    assert "1 failed, 0 absent, 4 start failed" in output_of("status", "tiny.py")[0]

    shutil.rmtree(obstacle)
    assert "5 Runs" in output_of("retry", "tiny.py")[0]
    output_of("run", "tiny.py", "--inline")
    assert not list(Path(store.root, "unfinished").iterdir())
