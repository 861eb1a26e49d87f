"""A user's own code by its name: one look-up, one sentence where it fails."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from maporl_env import debate_v0
from maporl_env.config import DebateConfig
from maporl_env.tasks import load_task
from maporl_env.types import Question
from maporl_env.user_functions import (
    function_named,
    is_own_name,
    name_object,
    object_named,
    whole_name,
)

APPLES = [Question("q0", "1 + 1 ?", "2", "number")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("file.py:score", True),
        ("some dir/file.py:Class.method", True),
        ("package.module:score", True),
        ("key", False),
        ("file.py", False),
        ("file.py:", False),
        (":score", False),
        ("http://host:80", False),
        ("noisy_key:0.9", False),
        ("questions.jsonl", False),
    ],
)
def test_what_is_a_name_of_ones_own_code(name: str, own: bool) -> None:
    assert is_own_name(name) is own


def test_a_file_runs_once_wherever_it_is_named_from(here: Path, monkeypatch) -> None:
    file = write(here / "sub" / "reward_of_mine.py", "import beside_it\ndef score(): return 7\n")
    write(here / "sub" / "beside_it.py", "print('ran', flush=True)\n")
    score = function_named("sub/reward_of_mine.py:score")
    assert score() == 7
    name = whole_name("sub/reward_of_mine.py:score")
    assert name == f"{file}:score"
    monkeypatch.chdir(here.parent)
    assert function_named(name) is score
    assert pickle.loads(pickle.dumps(score)) is score  # a started process finds it as we do


def test_a_file_hides_no_module_and_none_hides_it(here: Path) -> None:
    write(here / "sub" / "json.py", "def score(): return 'mine'\n")
    write(here / "sub" / "other.py", "import json\nloads = json.loads\n")
    assert function_named("sub/json.py:score")() == "mine"
    assert object_named("sub/json.py:score") is object_named("sub/json.py:score")
    assert object_named("sub/other.py:loads")("1") == 1


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere.py:score", r"there is no file nowhere\.py"),
        ("no_such_module:score", r"No module named 'no_such_module'.*module:name or file\.py:name"),
        ("there.py:scroe", r"no attribute 'scroe'; did you mean 'score'"),
        ("there.py:word", "is not a function"),
        (
            "raises.py:score",
            r"it raised ZeroDivisionError: division by zero \(raises\.py, line 2\)",
        ),
        ("leaves.py:score", "it raised SystemExit: 3"),
        ("needs.py:score", "it raised ModuleNotFoundError: No module named 'no_such_thing'"),
        ("spelt.py:score", "it raised SyntaxError"),
        ("python:score", "was an object of the Python program that started the run"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(here: Path, name: str, match: str) -> None:
    write(here / "there.py", "def score(): return 1\nword = 'x'\n")
    write(here / "raises.py", "\n1 / 0\n")
    write(here / "leaves.py", "raise SystemExit(3)\n")
    write(here / "needs.py", "import no_such_thing\n")
    write(here / "spelt.py", "def score(:\n")
    with pytest.raises(ValueError, match=match) as caught:
        function_named(name)
    assert "\n" not in str(caught.value)


def test_objects_get_names() -> None:
    assert name_object(write, "function") == f"{write.__module__}:write"
    local = [1]
    name = name_object(local, "thing")
    assert object_named(name) is local
    assert name_object(local, "thing") == name
    other = name_object([2], "thing")
    assert other != name
    assert object_named(other) == [2]


TASK = """
from maporl_env.tasks import Task
from maporl_env.types import Question

asked = [Question("q0", "1 + 1 ?", "2", "number")]
calls = []

def load(data=None):
    calls.append(data)
    return Task("mine", {"train": asked, "test": asked * 2})

def broken():
    raise KeyError("no file")

def nothing():
    return [1]
"""


def test_a_task_of_ones_own(here: Path) -> None:
    write(here / "my_task.py", TASK)
    task = load_task("my_task.py:load")
    assert (task.name, len(task.split("test"))) == ("mine", 2)
    assert load_task("my_task:asked").split("train") == APPLES
    load_task("my_task.py:load")
    assert object_named("my_task.py:calls") == [None]  # asked once, however often it is needed
    load_task("my_task.py:load", "rows.txt")
    assert object_named("my_task.py:calls") == [None, "rows.txt"]
    env = debate_v0.parallel_env(task="my_task.py:load", num_agents=2)
    assert "1 + 1" in env.reset(seed=0)[0]["agent_0"]
    for name, match in {
        "my_task.py:broken": "raised KeyError",
        "my_task.py:nothing": "must be, or return, a Task or a list",
        "my_task.py:lod": "task .*did you mean 'load'",
        "my_tsk.py:load": "there is no file",
    }.items():
        with pytest.raises(ValueError, match=match):
            load_task(name)


PROTOCOL = """
from dataclasses import dataclass
from maporl_env.protocols import SimultaneousDebate

@dataclass(frozen=True)
class Rounds(SimultaneousDebate):
    shout: bool = False
    word: str = "again"

    def news(self, seat, turn, history):
        return (self.word.upper() if self.shout else self.word) * bool(turn)

def no_protocol(num_turns):
    return 3
"""


def test_a_protocol_of_ones_own_and_its_options(here: Path) -> None:
    write(here / "my_protocol.py", PROTOCOL)
    options = {"shout": True, "word": "once more"}
    env = debate_v0.parallel_env(
        task=APPLES,
        num_agents=2,
        num_turns=2,
        protocol="my_protocol.py:Rounds",
        protocol_options=options,
    )
    env.reset(seed=0)
    observations, *_ = env.step(dict.fromkeys(env.agents, "no idea"))
    assert "ONCE MORE" in observations["agent_0"]


@pytest.mark.parametrize(
    ("protocol", "options", "match"),
    [
        ("my_protocol.py:Rounds", {"shuot": True}, "unknown option.*did you mean 'shout'"),
        ("my_protocol.py:Rounds", {"num_turns": 3}, "num_turns is an option of every debate"),
        ("my_protocol.py:no_protocol", {}, "makes no protocol: it has no num_turns"),
        ("my_protocol.py:Ronds", {}, "protocol .*did you mean 'Rounds'"),
        ("debate", {"shout": True}, "unknown option of protocol 'debate' 'shout'"),
        ("debte", {}, "unknown protocol 'debte'"),
    ],
)
def test_a_protocol_that_cannot_be_had(here: Path, protocol, options, match: str) -> None:
    write(here / "my_protocol.py", PROTOCOL)
    with pytest.raises(ValueError, match=match):
        DebateConfig(task=APPLES, num_agents=2, protocol=protocol, protocol_options=options).load()
