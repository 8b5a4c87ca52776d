"""The files of `study launch-files`, as far as they can be checked without a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.cli.launch_files import FILES, text_of
from study.cli.main import main

PROJECT = Path(__file__).parents[3]


def test_launch_files_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "launch"
    assert main(["launch-files", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == FILES.keys()
    assert all(str(folder / name) in printed for name in FILES)
    assert os.access(folder / "slurm.sh", os.X_OK)
    for name in FILES.keys() - {"slurm.sh"}:
        (folder / name).unlink()
    assert main(["launch-files", str(folder)]) == 2
    assert "slurm.sh exists already" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["slurm.sh"]


@pytest.mark.parametrize("name", FILES)
def test_launch_file_has_versions_and_the_gpus_of_a_trial(name: str) -> None:
    text = text_of(name)
    assert not re.search(r"@[A-Z_]+@", text)
    if name != "Dockerfile":
        assert re.search(r"study run .*--gpus-per-trial|FLAGS=.*--gpus-per-trial", text)


def test_rayjob_names_command_image_and_volume_once() -> None:
    job: Any = yaml.safe_load(text_of("rayjob.yaml"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    values = {key.rpartition("/")[2]: each for key, each in job["metadata"]["annotations"].items()}
    assert spec["entrypoint"] == values["command"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert [each["image"] for each in pod["containers"]] == [values["image"]]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == values["claim"]
        user = f"useradd --create-home --uid {pod['securityContext']['fsGroup']}"
        assert user in text_of("Dockerfile")
        # KubeRay 1.6 rejects these (validation.go of its ray-operator).
        assert "labels" not in group["rayStartParams"]
        assert not ("resources" in group and group["rayStartParams"])
        assert pod.get("restartPolicy", "Never") == "Never", "autoscaler v2"
    assert cluster["enableInTreeAutoscaling"]
    assert spec["backoffLimit"] == 0, "KubeRay repeats the exit statuses 1 and 2, too"
    assert cluster["authOptions"] == {"mode": "token"}, "since Ray 2.52"
    assert cluster["rayVersion"] == pytest.importorskip("ray").__version__
    # Required by `suspend`, which the file suggests, and by a ttl; rejected beside deletion rules.
    assert spec["shutdownAfterJobFinishes"] and "deletionStrategy" not in spec


def test_dockerfile_installs_what_ray_needs_and_copies_existing_files() -> None:
    text = text_of("Dockerfile")
    assert {"rsync", "tmux"} <= set(re.findall(r"\w+", text.partition("apt-get install")[2]))
    synced = re.findall(r"uv sync .*", text)
    assert synced and all("--extra bucket" in line for line in synced)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert any(each.startswith("boto3") for each in extras["bucket"])
    assert set(re.findall(r"--extra (\S+)", text)) <= extras.keys()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.M)
    names = {name for line in copied for name in line.split()} - {"uv.lock"}
    assert names == {"pyproject.toml", "README.md", "LICENSE", "study", "search_spaces", "analysis"}
    assert all((PROJECT / name).exists() for name in names)


def test_ray_up_file_is_valid_for_rays_launcher() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load(text_of("ray-up.yaml")))
    util.validate_config(config)
    for node_type in config["available_node_types"].values():
        # Without one, Ray takes an image of 2022, whose driver does not run CUDA 13.
        assert node_type["node_config"]["ImageId"] == "ami-CHANGE-ME"
    workers = config["available_node_types"]["gpu"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    start = [each for each in commands if "ray start" in each]
    assert len(start) == 2
    assert all("RAY_AUTH_MODE=token" in each for each in start)


def test_sky_file_has_one_head_with_a_token() -> None:
    task: Any = yaml.safe_load(text_of("sky.yaml"))
    assert task["resources"]["use_spot"] and task["num_nodes"] > 1
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("status", "nodes", "address"),
    [
        (0, ("node-7", "node-8"), "10.0.0.7"),
        (1, ("node-7", "node-8"), "10.0.0.7"),
        (3, ("node-7",), "127.0.0.1"),
    ],
)
def test_slurm_job_ends_with_the_status_of_the_store(
    tmp_path: Path, status: int, nodes: tuple[str, ...], address: str
) -> None:
    # Stand-ins for the commands that the script calls. Ray's ends with 0, even if the study fails.
    commands = {
        "scontrol": f'echo "$@" >> log; printf "%s\\n" {" ".join(nodes)}',
        "srun": 'echo srun "$@" >> log; while [ "${1#--}" != "$1" ]; do shift; done; "$@"',
        # On node-8; on node-7 itself the name stands for loopback.
        "getent": '[ "$*" = "ahostsv4 node-7" ] && echo "10.0.0.7 STREAM node-7"',
        "ray": 'echo ray "$@" >> log; [ -s "$RAY_AUTH_TOKEN_PATH" ] && [ "$RAY_AUTH_MODE" = token ]',
        "study": f'echo study "$@" >> log; exit {status}',
    }
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, text in commands.items():
        (bin_folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (bin_folder / name).chmod(0o755)
    env = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_NODELIST": "node-[7-8]",
        "SLURM_JOB_NUM_NODES": str(len(nodes)),
        "SLURM_CPUS_ON_NODE": "64",
    }
    ran = subprocess.run(
        ["bash", "-c", text_of("slurm.sh")], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ran.returncode == status, ran.stderr
    log = (tmp_path / "log").read_text().splitlines()
    assert log[0] == "show hostnames node-[7-8]"
    wanted = f"--address {address}:6379 --min-nodes {len(nodes)} -- study run quickstart"
    assert wanted in log[-2]
    (asked,) = [line for line in log if line.startswith("srun") and "ray symmetric-run" in line]
    assert "--cpus-per-task=64" in asked
    assert all("--nodelist=node-8" in line for line in log if "getent" in line)
    assert log[-1] == "study status quickstart --root /shared/store --exit-code"
    token = tmp_path / ".ray" / "freezewise-5"
    assert len(token.read_text()) == 64
    assert token.stat().st_mode & 0o077 == 0, "for its owner alone"
