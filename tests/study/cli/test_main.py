"""The verbs as a user meets them: wrong input is one message and status 2, the rest does what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

import study
from study.cli import run
from study.cli.main import main
from study.planning.plan import make_plan
from study.planning.spaces import load_space
from study.store import Store, open_store, read_registrations
from study.store.layout import registration_path, study_path, unfinished_path
from study.store.provenance import TRAINER, code_version
from study.store.store import store_command, without_secrets
from study.store.studies import add_registration, write_study
from tests import s3_server

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


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("STUDY_ROOT", "STUDY_DATA", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def space(text: str = SPACE, name: str = "tiny.py") -> str:
    Path(name).write_text(text)
    return name


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What `study …` says on stderr where it refuses; that it left nothing behind is checked."""
    assert main(argv) == 2
    said = capsys.readouterr()
    assert all(line.startswith("study: ") for line in said.err.splitlines())
    assert "Traceback" not in said.err
    assert not Path("store").exists()
    return said.err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("target_size=[30, 50]", "target_size=[30, 5000]", ["size=5000", "717", "digits-high"]),
        (
            '"digits-high"',
            '"digits-hihg"',
            ["'digits-hihg'", "cifar10", "did you mean 'digits-high'?"],
        ),
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
def test_a_wrong_space_is_refused_with_its_message(
    capsys: pytest.CaptureFixture[str], old: str, new: str, says: list[str]
) -> None:
    assert old in SPACE
    said = refused(capsys, "run", space(SPACE.replace(old, new)))
    for part in says:
        assert part in said, said


def test_everything_that_is_wrong_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = SPACE.replace("source_size=40", "source_size=9999").replace(
        "target_size=[30, 50]", "target_size=[30, 8888]"
    )
    said = refused(capsys, "run", space(wrong))
    assert "size=9999" in said
    assert "size=8888" in said
    assert "2 Runs" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("run tiny.py --inline --address auto", "--address=auto: not allowed with --inline"),
        ("status tiny.py --json --watch", "--watch: not allowed with --json"),
        ("", "VERB is missing; see study --help"),
        ("run", "Missing argument 'SPACE'; see study run --help"),
        ("run tiny.py other.py", "unexpected extra argument(s) (other.py); see study run --help"),
        ("run tiny.py --adress auto", "No such option: --adress (Possible options: --address)"),
        ("run tiny.py --root", "Option '--root' requires an argument"),
        (
            "run tiny.py --log wandbs",
            "choose from tensorboard, wandb, mlflow; did you mean 'wandb'?",
        ),
    ],
)
def test_main_wrong_command_line_is_one_line(
    capsys: pytest.CaptureFixture[str], argv: str, says: str
) -> None:
    space()
    said = refused(capsys, *argv.split())
    assert says in said
    assert len(said.splitlines()) == 1


def test_run_inline_with_ray_address_in_environment_is_accepted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "SPACE=nowhere" in refused(capsys, "run", "nowhere", "--inline")


@pytest.mark.parametrize("verb", ["plan", "run", "prepare"])
@pytest.mark.parametrize("root", ["/proc/nowhere", "here/file/store"])
def test_a_root_that_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], verb: str, root: str
) -> None:
    if root.startswith("/proc") and sys.platform != "linux":
        pytest.skip("/proc is Linux'")
    Path("here").mkdir()
    Path("here", "file").touch()
    said = refused(capsys, verb, space(), "--root", root)
    assert f"root={Path(root).absolute()}: " in said
    assert ("nothing can be written to /proc" in said) == (root == "/proc/nowhere")
    assert [path.name for path in Path("here").iterdir()] == ["file"]


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    Path("reports").touch()
    said = refused(capsys, verb, space())
    assert f"report=reports/tiny: {Path('reports').absolute()} is not a directory" in said


def test_what_is_no_root_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "root=" in refused(capsys, "run", space(), "--root", "ftp2://nowhere")
    for verb in ("plan", "run", "status", "report"):
        assert "root='': choose a directory" in refused(capsys, verb, space(), "--root", "")


def test_no_line_prints_the_secrets_of_a_uri() -> None:
    secret = "AKIA:abc/def+g"
    for given in (
        f"study run x --root s3://{secret}@bucket/f?region=x",
        f"study run x '--root=s3://{secret}@bucket/f@g'",
        "s3://key:SECRET@b/r and abfs://acc/c?client_secret=SECRET&tenant=x",
    ):
        said = without_secrets(given, "…")
        assert "abc" not in said
        assert "SECRET" not in said
        assert "…@b" in said
    for plain in ("s3://bucket/a@b", "/home/x@y/store", "gs://bucket/f?scheme=http&region=x"):
        assert without_secrets(plain, "…") == plain


def test_a_missing_data_directory_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    own = SPACE.replace('target_task="digits-high"', 'target_task="mine"') + (
        "from study.tasks import ImageFolderImages, Task\n"
        'TASKS = [Task(name="mine", images=ImageFolderImages(train="mine/train"))]\n'
    )
    said = refused(capsys, "run", space(own), "--data", "nowhere")
    assert "nowhere" in said
    assert "mine" in said


def test_a_space_that_is_not_there_is_refused_with_the_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb in ("run", "status", "plan"):
        assert "did you mean 'quickstart'?" in refused(capsys, verb, "quikstart")
    assert "did you mean 'digits'?" in refused(capsys, "prepare", "digts")
    assert "did you mean 'status'?" in refused(capsys, "statsu", "quickstart")
    assert "no such file" in refused(capsys, "plan", "missing.py")
    space()
    assert "give its name with .py" in refused(capsys, "plan", "tiny")


@pytest.mark.parametrize(
    "flags",
    [
        ["--gpus-per-trial", "1.5"],
        ["--gpus-per-trial", "many"],
        ["--max-concurrent", "0"],
        ["--max-concurrent", "1.5"],
        ["--checkpoint-seconds", "long"],
        ["--address", "ray://127.0.0.1:10001"],
        ["--cpus-per-trial", "0"],
        ["--checkpoint-seconds", "-1"],
    ],
)
def test_a_wrong_flag_is_refused(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    said = refused(capsys, "run", space(), *flags)
    assert said.startswith(f"study: {flags[0]}={flags[1]}: ")
    assert len(said.splitlines()) == 1


def test_a_part_that_no_run_is_of_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "choose from 0, 9" in refused(capsys, "run", space(), "--quiet", "--only", "frozen=8")


def test_what_comes_along_is_listed_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (quickstart,) = (line for line in lines if line.startswith("quickstart "))
    assert "88 Runs  Does the test error descend twice as fewer layers are frozen" in quickstart


def test_a_study_that_cannot_be_read_is_listed_with_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = open_store("store")
    write_study(store, "whole", load_space("quickstart").runs)
    store.put(study_path("torn"), b"{")
    assert main(["spaces"]) == 0
    torn, whole = capsys.readouterr().out.splitlines()[-2:]
    assert "? Runs  studies/torn.json is damaged" in torn
    assert "88 Runs  (a study in " in whole


def test_a_new_space_is_short_and_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "birds.py", "--root", "nest"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("birds.py: 27 Runs")
    assert said.endswith("then: study plan birds.py --root nest\n")
    assert len(Path("birds.py").read_text().splitlines()) <= 18
    planned = make_plan(load_space("birds.py"), open_store("store"), None)
    assert not planned.wrong and not planned.warnings
    assert planned.inventory.counts() == {"absent": 27}
    for wrong, says in (
        ("birds.py", "exists already"),
        ("birds", ".py"),
        ("a b.py", "study='a b'"),
    ):
        assert says in refused(capsys, "new", wrong)


def test_the_version_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"freezewise {code_version()}\n"


def test_status_is_watched_until_nothing_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(__file__).parents[2] / "fixtures" / "store-every-kind", "store")
    assert main(["status", "every", "--watch"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("every: 2 Runs: 2 done")
    assert "to check the rows: study verify every" in said

    waits: list[float] = []

    def ended(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", ended)
    assert main(["status", space(), "--watch"]) == 0
    assert len(waits) == 3
    assert capsys.readouterr().out.count("5 absent") == 1, "said again though nothing has changed"


def test_an_address_where_no_cluster_is_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "run", space(), "--address", "127.0.0.1:1")
    assert "--address=127.0.0.1:1" in said


@pytest.mark.slow
def test_wrong_input_and_status_start_neither_ray_nor_torch() -> None:
    """Also what they import in passing: a fresh process, or other tests' imports would count."""
    code = (
        "import sys; from study.cli.main import main; "
        "assert main(['run', 'wrong.py']) == 2; assert main(['status', 'tiny.py']) == 0; "
        "print(sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    space()
    space(SPACE.replace("30, 50", "30, 5000"), "wrong.py")
    env = os.environ | {"PYTHONPATH": str(Path(study.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.fixture(params=["directory", pytest.param("bucket", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    if request.param == "directory":
        return str(tmp_path / "store")
    request.getfixturevalue("s3_credentials")
    return s3_server.root(request.getfixturevalue("s3_port"), uuid.uuid4().hex)


@pytest.mark.slow
def test_a_study_from_plan_to_export(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, at_root = space(), ["--root", root]
    assert main(["plan", tiny, *at_root]) == 0
    planned = capsys.readouterr().out
    assert "5 Runs, 1 of them are starts" in planned
    assert "5 absent" in planned
    assert not open_store(root).listed("", recursive=True), "plan starts nothing"

    assert main(["prepare", tiny, *at_root]) == 0
    assert "digits-high: 717 training" in capsys.readouterr().out
    assert main(["run", tiny, "--inline", *at_root]) == 0
    page = Path(capsys.readouterr().out.splitlines()[-1])
    assert page.is_file()
    assert "Is a tiny study enough?" in page.read_text()

    page.unlink()
    assert main(["run", tiny, "--inline", "--only", "frozen=9,size=30", *at_root]) == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("2 of 2 Runs of --only=frozen=9,size=30, including starts, are done")
        and not page.exists()
    )

    assert main(["status", tiny, "--json", *at_root]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["done"] == 5
    assert len(told["code_versions"]) == 1
    assert told["trainers"] == {str(TRAINER): 5}

    cell = list(told["states"])[-1]
    assert main(["show", cell[:8], *at_root]) == 0
    shown = capsys.readouterr().out
    assert f"rows/{cell}.arrow" in shown
    assert "digits-low n=40 → digits-high" in shown
    assert main(["show", "no-id", *at_root]) == 2
    assert main(["retry", tiny, *at_root]) == 0
    run_line = shlex.join(["study", "run", tiny, *at_root])
    assert f"the next `{run_line}` tries 0 Runs again" in capsys.readouterr().out

    assert main(["export", tiny, "all.parquet", *at_root]) == 0
    import pyarrow.parquet as pq

    assert pq.read_table("all.parquet").num_rows == 5 * 3
    assert main(["report", tiny, "--out", "elsewhere", *at_root]) == 0
    assert Path("elsewhere/index.html").is_file()


@pytest.mark.slow
def test_a_study_is_registered_before_its_first_row_or_late(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = space()
    assert main(["register", tiny]) == 0
    assert re.fullmatch(
        r"tiny: registered at \S+: [0-9a-f]{12}, of 5 Runs\n", capsys.readouterr().out
    )
    assert main(["register", tiny]) == 0
    assert "already registered at" in capsys.readouterr().out
    (noted,) = read_registrations(open_store("store"), "tiny")
    assert not noted.is_late and len(noted.run_ids) == 5

    # A registration of 0.1.0 stored a digest of RULES 1: the study is registered by today's RULES.
    store, in_0_1_0 = open_store("store"), {**noted.terms, "code": "9d0ac35d"}
    for name in ("rules", "SEARCH", "NEAR_FACTOR"):
        del in_0_1_0[name]
    store.remove(registration_path("tiny"))
    add_registration(store, "tiny", replace(noted, terms=in_0_1_0))
    assert main(["register", tiny]) == 0
    assert "already registered at" not in capsys.readouterr().out
    first, second = read_registrations(store, "tiny")
    assert first.terms == in_0_1_0 and second.terms == noted.terms

    monkeypatch.setattr(run, "write_report", lambda *_, **__: 0)
    assert main(["run", tiny, "--inline"]) == 0
    space(SPACE.replace("seed=0", "seed=[0, 1]"))
    assert main(["register", tiny]) == 0
    assert "registered too late: target rows already exist" in capsys.readouterr().err
    last = [one.is_late for one in read_registrations(open_store("store"), "tiny")]
    assert last == [False, False, True]


@pytest.mark.slow
def test_what_fails_for_good_is_named_and_wanted_again_after_retry(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source cannot note that it began, whoever tries: a folder lies in the note's place."""
    tiny, root = space(), ["--root", store.root]
    assert main(["status", tiny, "--json", *root]) == 0
    source = next(iter(json.loads(capsys.readouterr().out)["states"]))
    obstacle = Path(store.root, unfinished_path(source, "began.json", 1))  # of the first driver
    obstacle.mkdir(parents=True)
    (obstacle / "in the way").touch()

    assert main(["run", tiny, "--inline", *root]) == 1
    said = capsys.readouterr().err
    assert f"failed: {source}" in said
    assert "4 tries" in said
    assert said.count("start failed") == 4
    assert "study retry tiny.py" in said

    assert main(["run", tiny, "--inline", *root]) == 1, "not tried again unasked"
    assert "running" not in capsys.readouterr().err
    assert main(["status", tiny, *root]) == 0
    assert "1 failed, 0 absent, 4 start failed" in capsys.readouterr().out

    (obstacle / "in the way").unlink()
    obstacle.rmdir()
    assert main(["retry", tiny, *root]) == 0
    assert "5 Runs" in capsys.readouterr().out
    assert main(["run", tiny, "--inline", *root]) == 0
    assert not list(Path(store.root, "unfinished").iterdir())


@pytest.mark.parametrize("verb", ["plan", "run", "check"])
@pytest.mark.parametrize("name", ["my study.py", "größe.py"])
def test_main_invalid_study_name_is_an_error_at_once(
    capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    assert "the file's name is the study's" in refused(capsys, verb, space(name=name))
    assert "the file's name is the study's" in refused(capsys, "new", f"ä{name}")


def test_plan_fewer_images_than_classes_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", space(SPACE.replace("30, 50", "3, 50"))]) == 0
    said = "warning: Run.size=3: task 'digits-high' has 5 classes, so some have no training image"
    shown = capsys.readouterr().out
    assert said in shown and "a process: Python and libraries" in shown


def test_store_command_keeps_a_root_that_is_not_the_default() -> None:
    assert store_command("verify", "tiny", root="./store") == "study verify tiny"
    assert store_command("verify", "my tiny", root="r") == "study verify 'my tiny' --root r"
    assert "secret" not in store_command("retry", "tiny", root="s3://key:secret@bucket/store")


def test_run_address_from_the_environment_is_named_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    said = refused(capsys, "plan", space(), "--cpus-per-trial", "1")
    assert "RAY_ADDRESS=127.0.0.1:9" in said and "--address=" not in said
