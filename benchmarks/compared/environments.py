"""One virtual environment per peer, made once and kept in a folder of the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

USUAL_FOLDER = Path("~/.cache/maporl-peers")
TORCH = "torch==2.13.0"
"""Installed first, so that no peer brings another one. From an index with CPU builds, no CUDA."""


@dataclass(frozen=True)
class Peer:
    """A library that is compared with.

    Attributes:
        title: for people.
        name: of its environment.
        packages: that are installed.
        driver: the file of this folder that trains with it.
        without_pins: a package that is installed without what it asks for, where that cannot be
            installed beside our torch.
    """

    title: str
    name: str
    packages: tuple[str, ...]
    driver: str
    without_pins: str = ""


_TRL = ("trl==1.12.0", "peft", "requests")
TRL_PPO = Peer("TRL PPO 1.12.0", "trl-1.12.0", _TRL, "trl_ppo.py")
TRL_GRPO = Peer("TRL GRPO 1.12.0", "trl-1.12.0", _TRL, "trl_grpo.py")
TRL_GRPO_NEW = Peer("TRL GRPO 1.16.0", "trl-1.16.0", ("trl==1.16.0", *_TRL[1:]), "trl_grpo.py")
COMLRL = Peer("CoMLRL 1.4.3", "comlrl-1.4.3", ("comlrl==1.4.3", "peft"), "peer_comlrl.py")
AGILERL = Peer(
    "AgileRL LLMPPO 2.58.0", "agilerl-2.58.0", ("agilerl[cpu-llm]==2.58.0",), "peer_agilerl.py"
)
# Its 117 pins bring torch 2.7.1 with CUDA; logit fusion needs torch and transformers alone.
MODELCO = Peer(
    "modelco 1.1.2",
    "modelco-1.1.2",
    ("transformers>=5,<6", "peft", "tqdm"),
    "peer_modelco.py",
    without_pins="modelco==1.1.2",
)
PEERS = (TRL_PPO, AGILERL, TRL_GRPO, TRL_GRPO_NEW, COMLRL)


def python_of(peer: Peer, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, which is made if it is not there.

    Raises:
        subprocess.CalledProcessError: a package cannot be installed; pip says why.
    """
    place = folder.expanduser() / peer.name
    python, mark = place / "bin" / "python", place / ".ready"
    if mark.exists():
        return python
    print(f"{peer.name}: making {place} (once, some minutes)", file=sys.stderr)
    alone = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    install = [str(python), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [*install, TORCH],
        [*install, TORCH, *peer.packages],
        *([[*install, "--no-deps", peer.without_pins]] if peer.without_pins else ()),
    ):
        subprocess.run(["nice", *command], check=True, env=alone)
    mark.touch()
    return python


def version_of(python: Path, package: str) -> str:
    """Return the installed version of a package."""
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    return found.stdout.strip()
