"""The files of `study launch-files`, as far as they can be told right without a cluster."""

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


def test_files_are_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "launch"
    assert main(["launch-files", str(folder)]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == FILES.keys()
    assert all(str(folder / name) in said for name in FILES)
    assert os.access(folder / "slurm.sh", os.X_OK)
    (folder / "slurm.sh").write_text("mine")
    for name in FILES.keys() - {"slurm.sh"}:
        (folder / name).unlink()
    assert main(["launch-files", str(folder)]) == 2
    assert "slurm.sh exists already" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["slurm.sh"]


@pytest.mark.parametrize("name", FILES)
def test_the_versions_of_here_are_filled_in(name: str) -> None:
    assert not re.search(r"@[A-Z_]+@", text_of(name))


def test_a_rayjob_says_once_what_is_to_be_changed() -> None:
    job: Any = yaml.safe_load(text_of("rayjob.yaml"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    values = {key.rpartition("/")[2]: each for key, each in job["metadata"]["annotations"].items()}
    assert spec["entrypoint"] == values["command"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        assert [each["image"] for each in pod["containers"]] == [values["image"]]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == values["claim"]
    assert cluster["enableInTreeAutoscaling"]
    assert spec["backoffLimit"] == 0, "KubeRay repeats the exit statuses 1 and 2, too"
    for pod in (group["template"]["spec"] for group in pods):
        assert f"useradd --create-home --uid {pod['securityContext']['fsGroup']}" in text_of(
            "Dockerfile"
        )
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == pytest.importorskip("ray").__version__


def kuberay_faults(spec: dict[str, Any]) -> list[str]:
    """Return what KubeRay 1.6 rejects beyond its schema (validation.go of its ray-operator)."""
    cluster, faults = spec["rayClusterSpec"], []
    strategy, shuts_down = spec.get("deletionStrategy"), spec.get("shutdownAfterJobFinishes", False)
    rules = (strategy or {}).get("deletionRules", [])
    policies = {rule["policy"] for rule in rules}
    policies |= {each["policy"] for key, each in (strategy or {}).items() if key != "deletionRules"}
    if spec.get("suspend") and not shuts_down:
        faults.append("suspend without shutdownAfterJobFinishes")
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not shuts_down:
        faults.append("ttlSecondsAfterFinished without shutdownAfterJobFinishes")
    if rules and shuts_down:
        faults.append("deletionRules with shutdownAfterJobFinishes")
    if "DeleteWorkers" in policies and cluster.get("enableInTreeAutoscaling"):
        faults.append("DeleteWorkers with autoscaling")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        if "labels" in group["rayStartParams"]:
            faults.append("labels in rayStartParams")
        if group.get("resources") and group["rayStartParams"]:
            faults.append("resources beside rayStartParams")
        if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            faults.append("restartPolicy with autoscaler v2")
    if cluster.get("authOptions") and tuple(map(int, cluster["rayVersion"].split("."))) < (2, 52):
        faults.append("token of a Ray before 2.52")
    return faults


DELETE_WORKERS = {
    "policy": "DeleteWorkers",
    "condition": {"jobStatus": "SUCCEEDED", "ttlSeconds": 0},
}


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"suspend": True}, []),  # the hint in the file
        # The file of 0.1.0.
        (
            {
                "shutdownAfterJobFinishes": False,
                "ttlSecondsAfterFinished": 0,
                "suspend": True,
                "deletionStrategy": {"deletionRules": [DELETE_WORKERS]},
            },
            ["suspend without shutdownAfterJobFinishes", "DeleteWorkers with autoscaling"],
        ),
    ],
)
def test_rayjob_follows_the_rules_of_kuberay(changes: dict[str, Any], faults: list[str]) -> None:
    job: Any = yaml.safe_load(text_of("rayjob.yaml"))
    assert kuberay_faults(job["spec"] | changes) == faults


@pytest.mark.parametrize("name", ["rayjob.yaml", "ray-up.yaml", "slurm.sh", "sky.yaml"])
def test_launch_files_name_the_gpus_of_a_trial(name: str) -> None:
    text = text_of(name)
    assert re.search(r"study run .*--gpus-per-trial|FLAGS=.*--gpus-per-trial", text)


def test_dockerfile_has_what_ray_needs_to_launch_it_on_a_cloud() -> None:
    text = text_of("Dockerfile")
    assert {"rsync", "tmux"} <= set(re.findall(r"\w+", text.partition("apt-get install")[2]))
    synced = re.findall(r"uv sync .*", text)
    assert synced and all("--extra bucket" in line for line in synced)
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert any(each.startswith("boto3") for each in extras["optional-dependencies"]["bucket"])


def test_ray_takes_the_file_for_its_launcher() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load(text_of("ray-up.yaml")))
    util.validate_config(config)
    for node_type in config["available_node_types"].values():
        # Without one, Ray takes an image of 2022, whose driver does not run CUDA 13.
        assert node_type["node_config"]["ImageId"] == "ami-CHANGE-ME"
    workers = config["available_node_types"]["gpu"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    start = [each for each in config["head_start_ray_commands"] if "ray start" in each]
    start += [each for each in config["worker_start_ray_commands"] if "ray start" in each]
    assert len(start) == 2
    assert all("RAY_AUTH_MODE=token" in each for each in start)


def test_skypilots_file_has_one_head_with_a_token() -> None:
    task: Any = yaml.safe_load(text_of("sky.yaml"))
    assert task["resources"]["use_spot"] and task["num_nodes"] > 1
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_image_is_made_of_what_there_is() -> None:
    text = text_of("Dockerfile")
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.M)
    names = {name for line in copied for name in line.split()} - {"uv.lock"}
    assert names == {"pyproject.toml", "README.md", "LICENSE", "study", "search_spaces", "analysis"}
    assert all((PROJECT / name).exists() for name in names)
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"--extra (\S+)", text)) <= extras.keys()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("status", "nodes", "address"),
    [
        (0, ("node-7", "node-8"), "10.0.0.7"),
        (1, ("node-7", "node-8"), "10.0.0.7"),
        (3, ("node-7",), "127.0.0.1"),
    ],
)
def test_a_slurm_job_ends_as_the_store_says(
    tmp_path: Path, status: int, nodes: tuple[str, ...], address: str
) -> None:
    """Slurm's two commands are stand-ins here, and Ray's ends with 0 whatever happens, as it does."""
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
