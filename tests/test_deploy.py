"""The launchers of deploy/: their shell runs, their flags exist, and Ray and accelerate train."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
yaml = pytest.importorskip("yaml", reason="the extra 'train' is not installed")
pytest.importorskip("torch", reason="the extra 'train' is not installed")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def pod_scripts() -> dict[str, str]:
    """Every shell text in a file of pods or nodes."""
    job = documents("kubernetes-job.yaml")[1]["spec"]["template"]["spec"]["containers"][0]
    worker = documents("kubernetes-pytorchjob.yaml")[0]["spec"]["pytorchReplicaSpecs"]["Worker"]
    torchjob = worker["template"]["spec"]["containers"][0]
    return {
        "job": job["args"][0],
        "pytorchjob": torchjob["args"][0],
        "skypilot": documents("skypilot.yaml")[0]["run"],
        "slurm": (DEPLOY / "slurm.sbatch").read_text(),
    }


SPOKEN = """#!/bin/bash
printf '%s\\n' "$0" "$@" > "$TOLD"
"""


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """Run a script with a torchrun that says what it was given; return its words."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("torchrun", "srun"):
        (programs / name).write_text(SPOKEN)
        (programs / name).chmod(0o755)
    (programs / "scontrol").write_text("#!/bin/bash\necho node-a\necho node-b\n")
    (programs / "scontrol").chmod(0o755)

    def run(script: str, *words: str, runs: Path) -> list[str]:
        said = tmp_path / "said"
        variables = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "TOLD": str(said),
            "RUNS": str(runs),
            "SLURM_NNODES": "2",
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": "32",
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "JOB_COMPLETION_INDEX": "1",
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_RANK": "1",
            "SKYPILOT_NUM_GPUS_PER_NODE": "8",
            "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        }
        script = script.replace("/runs", str(runs)) if "sbatch" not in script else script
        subprocess.run(["bash", "-c", script, "bash", *words], env=variables, check=True)
        return said.read_text().splitlines()[1:]

    return run


@pytest.mark.parametrize("name", ["job", "pytorchjob", "skypilot", "slurm"])
def test_a_launcher_starts_a_run_and_goes_on_with_one(name: str, told: Any, tmp_path: Path) -> None:
    """By flags that torchrun and `maporl train` have."""
    from torch.distributed.run import get_args_parser

    from maporl_agents.cli import _command
    from maporl_agents.commands.train import settings_from

    own = ("--name", "big", "--team.tuning", "lora") if name == "slurm" else ()
    runs = tmp_path / "shared"
    words = told(pod_scripts()[name], *own, runs=runs)
    words = words[words.index("torchrun") + 1 :] if "torchrun" in words else words
    words = [word for word in words if not word.startswith("--kill")]
    given = get_args_parser().parse_args(words)
    assert given.module
    assert given.training_script == "maporl_agents.cli"
    train, *flags = given.training_script_args
    assert train == "train"
    config, _ = settings_from(flags)
    made = _command(["train", *flags])
    assert made is not None
    assert made.config.name == "big"  # type: ignore[union-attr]
    assert made.config.team.tuning == "lora"  # type: ignore[union-attr]
    assert config.name == "maporl-shopping"
    if name != "pytorchjob":  # whose operator tells torchrun by variables
        assert given.nnodes == "2"
        assert given.nproc_per_node == "8"
        assert given.max_restarts == 3
    (runs / "big").mkdir(parents=True)
    (runs / "big" / "config.json").touch()
    words = told(pod_scripts()[name], *own, runs=runs)
    assert words[-3:] == ["train", "--resume", str(runs / "big")]


def test_the_pods_of_a_job_find_each_other() -> None:
    service, job = documents("kubernetes-job.yaml")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    script = pod["containers"][0]["args"][0]
    assert f"{job['metadata']['name']}-0.{pod['subdomain']}" in script
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_job_of_ray_names_flags_of_its_script() -> None:
    words = documents("kuberay.yaml")[0]["spec"]["entrypoint"].split()
    assert words[1].endswith("deploy/ray_train.py")
    text = (DEPLOY / "ray_train.py").read_text()
    for word in words[2:]:
        if word.startswith("--"):
            assert f'"{word}"' in text
    from maporl_agents.config import TrainConfig
    from maporl_agents.training.keywords import settings_with

    settings = dict(word.split("=", 1) for word in words[2:] if "=" in word)
    assert settings.pop("model").startswith("Qwen/")  # a keyword of `maporl_agents.train` itself
    config = settings_with(TrainConfig(), settings)
    assert (config.name, config.team.tuning) == ("big", "lora")


def test_the_page_names_every_file() -> None:
    named = set(re.findall(r"^\| `([^`]+)` \|", (DEPLOY / "README.md").read_text(), re.MULTILINE))
    files = {path.name for path in DEPLOY.iterdir() if path.is_file()} - {"README.md"}
    assert named >= files


SMALL = {
    "name": "run",
    "steps": 1,
    "questions_per_step": 2,
    "max_new_tokens": 4,
    "eval.questions": 2,
}


def environment(**more: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "agents"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"} | more


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_accelerate_trains_with_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    words = ["--runs", str(tmp_path), "--sampling.max-new-tokens", "4", "--name", "run"]
    words += ["--steps", "1", "--questions-per-step", "2", "--eval.questions", "2"]
    done = subprocess.run(
        [sys.executable, DEPLOY / "accelerate_train.py", "--cpu", "2", *words],
        env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("run folder:") == 1
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_ray_trains_with_two_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray.train", reason="the extra 'launchers' is not installed")
    done = subprocess.run(
        [sys.executable, DEPLOY / "ray_train.py", "--workers", "2", "--runs", tmp_path]
        + [f"{name}={value}" for name, value in SMALL.items()],
        env=environment(
            RAY_TRAIN_V2_ENABLED="1",
            RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="600",  # by default a minute
            RAY_worker_niceness="0",  # by default 15, which starves on a busy machine
        ), capture_output=True, text=True, timeout=800,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "results.json").is_file()
