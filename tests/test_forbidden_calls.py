"""Failure X12: nothing in the tree runs what it reads, unpickles it, or unpacks it anywhere.

The tree is read as syntax, so that comments and texts may speak of these things.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("maporl_env", "agents", "examples", "scripts", "benchmarks")
ALLOWED = {
    # What the sandbox is for: they run behind its walls, in a process of their own.
    ("maporl_env/jail/worker.py", "exec"),
    ("maporl_env/jail/checker.py", "exec"),
    # Programs of our own, which say what a rewrite must return; no model's text is run there.
    ("maporl_env/tasks/optimise.py", "exec"),
    ("maporl_env/tasks/optimise.py", "eval"),
    # Items of reasoning-gym go between processes of the library's own code; no model's text does.
    ("maporl_env/tasks/reasoning_stream.py", "pickle"),
    ("maporl_env/verifiers/reasoning.py", "pickle"),
    ("maporl_env/verifiers/reasoning_worker.py", "pickle"),
}
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILT_IN = {"eval", "exec"}
ANYWHERE = {"extractall", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all"}
NEVER = {"trust_remote_code": True, "shell": True, "allow_pickle": True, "weights_only": False}


def faults(source: str) -> list[str]:
    """Return what a source does that it must not."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            found += _of_call(node)
    return found


def _of_call(node: ast.Call) -> list[str]:
    given = {
        keyword.arg: keyword.value.value
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Constant)
    }
    found = [f"{name}={value}" for name, value in NEVER.items() if given.get(name) is value]
    if isinstance(node.func, ast.Name) and node.func.id in BUILT_IN:
        found.append(node.func.id)
    if isinstance(node.func, ast.Attribute):
        name, owner = node.func.attr, ast.unparse(node.func.value)
        if name in ANYWHERE or (owner, name) == ("os", "system"):
            found.append(name)
        if owner == "yaml" and name in ("load", "load_all"):
            found.append(f"yaml.{name}")
        if (owner, name) == ("torch", "load") and given.get("weights_only") is not True:
            found.append("torch.load")
    return found


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("eval('1')", "eval"),
        ("exec(compile('1', '', 'exec'))", "exec"),
        ("import tarfile\ntarfile.open('a').extractall()", "extractall"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("import yaml\nyaml.unsafe_load(text)", "unsafe_load"),
        ("import pickle", "pickle"),
        ("from joblib.externals import cloudpickle", "joblib.externals"),
        ("import torch\ntorch.load('a.pt')", "torch.load"),
        ("import torch\ntorch.load('a.pt', weights_only=True)", ""),
        ("import numpy as np\nnp.load('a.npy', allow_pickle=True)", "allow_pickle=True"),
        ("Auto.from_pretrained('a', trust_remote_code=True)", "trust_remote_code=True"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "shell=True"),
        ("import os\nos.system('ls')", "system"),
        ("model.eval()\n'pickle, eval(x)'  # exec", ""),
    ],
)
def test_the_scan_finds_what_it_looks_for(source: str, fault: str) -> None:
    assert faults(source) == ([fault] if fault else [])


def test_none_of_it_is_in_the_tree() -> None:
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(files) > 100
    found = {
        (path.relative_to(REPOSITORY).as_posix(), fault)
        for path in files
        for fault in faults(path.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED
