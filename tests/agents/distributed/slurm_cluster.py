"""A SLURM cluster of two nodes on this machine, of Debian's packages slurm-wlm and munge.

The daemons run as the user of the tests, with files and ports of their own. Each node says that it
has 32 cores and 8 GPUs, so that `deploy/slurm.sbatch` runs as it is.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rank_cases import REPOSITORY, free_port

DAEMONS = ("munged", "slurmctld", "slurmd")
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=32 Gres=gpu:8\n"


def missing() -> list[str]:
    """Return the programs of a cluster that this machine does not have."""
    return [name for name in DAEMONS if shutil.which(name, path=PLACES) is None]


@dataclass(frozen=True)
class Cluster:
    """A running cluster; commands of SLURM speak to it with `variables`."""

    folder: Path
    variables: dict[str, str]

    def told(self, *words: object) -> str:
        """Run a command of SLURM and return what it prints."""
        done = subprocess.run(
            [*map(str, words)], env=self.variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def submit(self, *words: object) -> str:
        """Submit deploy/slurm.sbatch with further words; return the number of the job."""
        output = f"--output={self.folder}/job-%j.out"
        return self.told(
            "sbatch", "--parsable", output, REPOSITORY / "deploy" / "slurm.sbatch", *words
        )

    def output(self, job: str) -> str:
        """Return what a job has printed."""
        path = self.folder / f"job-{job}.out"
        return path.read_text() if path.exists() else ""

    def ended(self, job: str, seconds: float = 400) -> str:
        """Wait for the end of a job; return its state, such as COMPLETED."""
        end = time.monotonic() + seconds
        while self.told("squeue", "-h", "-j", job, "-o", "%T"):
            assert time.monotonic() < end, self.output(job)
            time.sleep(0.2)
        shown = self.told("scontrol", "show", "job", job)
        return next(w.partition("=")[2] for w in shown.split() if w.startswith("JobState="))

    def process_of(self, job: str, rank: int) -> int:
        """Return the process of a rank of a job."""
        wanted = {f"SLURM_JOB_ID={job}".encode(), f"RANK={rank}".encode()}
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted <= set(path.read_bytes().split(b"\0")):
                    return int(path.parent.name)
            except OSError:
                continue
        raise AssertionError(f"no process of rank {rank}")


@contextmanager
def cluster(**variables: str) -> Iterator[Cluster]:
    """Run a cluster until the block ends; jobs see `variables` beside this environment."""
    with ExitStack() as stack:
        # the path of a socket has at most 107 characters
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm")))
        found = _settled(folder, variables)
        nodes = _nodes()
        munged = ("munged", "--force", "--foreground", *_munge(folder))
        stack.enter_context(_daemon(munged, found, folder / "munged.log"))
        _wait_for(lambda: (folder / "munge.socket").exists(), folder)
        stack.enter_context(_daemon(("slurmctld", "-D"), found, folder / "slurmctld.log"))
        for name in nodes:
            words = ("slurmd", "-D", "-N", name)
            stack.enter_context(_daemon(words, found, folder / f"slurmd-{name}.log"))
        _wait_for(lambda: _idle(found) == len(nodes), folder)
        yield found
        subprocess.run(["scancel", "--user", getpass.getuser()], env=found.variables, check=False)
        _wait_for(lambda: not found.told("squeue", "-h"), folder)


def _nodes() -> tuple[str, str]:
    """Return the names of two nodes, first that of this machine, which others can look up."""
    host = socket.gethostname().partition(".")[0]
    return host, f"{host}-second"


def _munge(folder: Path) -> list[str]:
    places = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munge.pid",
        "seed-file": "munge.seed",
        "log-file": "munge.log",
    }
    return [f"--{option}={folder / name}" for option, name in places.items()]


def _settled(folder: Path, variables: dict[str, str]) -> Cluster:
    """Write the files of a cluster."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    (folder / "state").mkdir()
    host, *_ = nodes = _nodes()
    given = {"host": host, "port": free_port(), "user": getpass.getuser(), "folder": folder}
    rows = [NODE.format(name=name, port=free_port()) for name in nodes]
    (folder / "slurm.conf").write_text(SETTINGS.format(**given) + "".join(rows))
    for i in range(8):
        (folder / f"gpu{i}").symlink_to("/dev/null")
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    paths = [str(Path(sys.executable).parent), PLACES]
    own = {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "agents")]),
    }
    return Cluster(folder, os.environ | own | variables)


@contextmanager
def _daemon(words: Sequence[str], found: Cluster, log: Path) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(words, env=found.variables, stdout=file, stderr=file)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle(found: Cluster) -> int:
    """Return the number of nodes that wait for work."""
    done = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%T"], env=found.variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.stdout.split().count("idle")


def _wait_for(condition: Callable[[], bool], folder: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
        assert time.monotonic() < end, logs
        time.sleep(0.2)
