"""The tasks `reasoning_gym:NAME` with a library made here: options, splits, scorers that fail."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import refused

from maporl_env.answers import last_box
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.tasks import load_task, reasoning
from maporl_env.tasks.reasoning import worked
from maporl_env.types import Question
from maporl_env.verifiers import Scorer
from maporl_env.verifiers.reasoning import ReasoningGymVerifier, spellings

LIBRARY = """
from dataclasses import dataclass
from random import Random


@dataclass
class Config:
    low: int = 0
    high: int = 99
    scale: float = 1.0
    shout: bool = False
    words: tuple = ("a",)
    seed: int | None = None
    size: int = 500

    def validate(self):
        assert self.low <= self.high, "high must be >= low"


class Doubles:
    def __init__(self, config):
        config.validate()
        self.config = config

    def __getitem__(self, place):
        n = Random(self.config.seed + place).randint(self.config.low, self.config.high)
        answer = {"doubles": str(2 * n), "broken": str(2 * n), "free": None}[self.kind]
        return {"question": f"Double {n}", "answer": answer, "metadata": {"n": n}}

    def score_answer(self, answer, entry):
        if self.kind == "broken":
            raise RuntimeError("the scorer is broken")
        if answer is None:
            return 0.0
        if answer == "die":
            import os
            os._exit(1)
        if answer == "quit":
            raise SystemExit
        if answer == "loop":
            while True:
                pass
        return float(int(answer) == 2 * entry["metadata"]["n"])  # raises for a word


DATASETS = {
    kind: (type(kind, (Doubles,), {"kind": kind}), Config) for kind in ("doubles", "broken", "free")
}
DATASETS["composite"] = (Doubles, Config)
"""
INIT = """
from reasoning_gym.factory import DATASETS


def create_dataset(name, **settings):
    made, config = DATASETS[name]
    return made(config(**settings))
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library with three data sets in the place of the real one."""
    package = tmp_path / "reasoning_gym"
    package.mkdir()
    (package / "__init__.py").write_text(INIT)
    (package / "factory.py").write_text(LIBRARY)
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    reasoning._load.cache_clear()
    yield
    reasoning._load.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        del sys.modules[name]  # monkeypatch puts the real one back


def made(name: str) -> tuple[Question, ReasoningGymVerifier]:
    task = load_task(name)
    assert task.make_verifier is not None
    return task.split("train")[0], task.make_verifier()


@pytest.mark.usefixtures("library")
@refused(
    ("reasoning_gym", "no data set is named: write reasoning_gym:NAME with one of doubles"),
    ("reasoning_gym:double", "no data set 'double' in reasoning_gym: did you mean 'doubles'"),
    ("reasoning_gym:zzz", "write reasoning_gym:NAME with one of doubles, broken, free"),
    ("reasoning_gym:composite", "is no task of its own: it is a mixture"),
    ("reasoning_gym:doubles,hi=3", "has no option 'hi': did you mean 'high'?"),
    ("reasoning_gym:doubles,size=3", "has no option 'size'"),
    ("reasoning_gym:doubles,high", "are KEY=VALUE, not 'high'"),
    ("reasoning_gym:doubles,high=1,high=2", "set high twice"),
    ("reasoning_gym:doubles,high=x", "option high .* is of type int, not 'x'"),
    ("reasoning_gym:doubles,high=1.5", "option high .* is of type int, not '1.5'"),
    ("reasoning_gym:doubles,high=true", "option high .* is of type int, not 'true'"),
    ("reasoning_gym:doubles,shout=3", "option shout .* is of type bool, not '3'"),
    ("reasoning_gym:doubles,high=1,low=2", "refuses these options: high must be >= low"),
    ("reasoning_gym:doubles,train=0", "option train .* is at least 1, not 0"),
    ("reasoning_gym:doubles,seed=4001", "option seed .* is from 0 to 4000, not 4001"),
)
def test_what_makes_no_task_is_one_sentence(name: str) -> None:
    load_task(name)


@pytest.mark.usefixtures("library")
def test_data_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="leave out data='x'"):
        load_task("reasoning_gym", "x")


@pytest.mark.usefixtures("library")
def test_options_have_the_declared_types() -> None:
    task = load_task('reasoning_gym:doubles,low=1,high=9,scale=2,shout=true,words=["x","y"]')
    assert task.make_verifier is not None
    settings = task.make_verifier().items.settings
    kept = {name: settings[name] for name in ("low", "high", "scale", "shout", "words")}
    assert kept == {"low": 1, "high": 9, "scale": 2.0, "shout": True, "words": ("x", "y")}
    assert isinstance(settings["scale"], float)


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_splits_are_disjoint_and_as_large_as_there_are_questions() -> None:
    task = load_task("reasoning_gym:doubles,high=59,train=500,validation=500,test=500")
    splits = [{q.prompt for q in task.split(name)} for name in ("train", "validation", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 60
    few = load_task("reasoning_gym:doubles,high=59,train=3,validation=1,test=2,seed=7")
    for split, prompts in zip(("train", "validation", "test"), splits, strict=True):
        assert {q.prompt for q in few.split(split)} <= prompts


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_a_split_without_a_question_says_so() -> None:
    task = load_task("reasoning_gym:doubles,high=0")
    empty = []
    for split in ("train", "validation", "test"):
        try:
            assert len(task.split(split)) == 1
        except ValueError as error:
            empty.append(str(error))
    assert len(empty) == 2
    assert all("choose options that allow more" in text for text in empty)


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_a_scorer_that_raises_on_an_answer_alone_met_a_wrong_one() -> None:
    question, verifier = made("reasoning_gym:doubles,train=3")
    right = f"\\boxed{{{question.answer}}}"
    texts = [right, "\\boxed{word}", "\\boxed{quit}", "no box", "\\boxed{die}", right]
    assert verifier.score([question] * 6, texts) == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_a_scorer_that_takes_too_long_is_ended() -> None:
    question, verifier = made("reasoning_gym:doubles,train=3")
    right = f"\\boxed{{{question.answer}}}"
    assert verifier.score([question], [right]) == [1.0]  # has started
    verifier.seconds = 0.2
    assert verifier.score([question], ["\\boxed{loop}"]) == [0.0]
    verifier.seconds = 60.0
    assert verifier.score([question], [f"again {right}"]) == [1.0]


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_a_broken_scorer_gives_no_score_and_is_counted() -> None:
    question, verifier = made("reasoning_gym:broken,train=3")
    guard = Scorer(verifier)
    assert guard.score([question] * 2, ["\\boxed{2}", "\\boxed{3}"]) == [None, None]
    assert guard.faults == {"no score": 2}


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_a_question_without_an_own_answer_is_scored() -> None:
    question, verifier = made("reasoning_gym:free,train=3")
    double = 2 * int(question.prompt.removeprefix("Double "))
    texts = [f"\\boxed{{{double}}}", "\\boxed{-1}", f"\\boxed{{{question.answer}}}"]
    assert verifier.score([question] * 3, texts) == [1.0, 0.0, 0.0]


@pytest.mark.thorough
@pytest.mark.usefixtures("library")
def test_the_own_answer_is_shown_as_a_worked_example() -> None:
    config = DebateConfig("reasoning_gym:doubles,train=9", num_agents=2, num_turns=2, shots=2)
    debates = BatchedDebate(config, 1)
    debates.reset(debates.game.task.split("test")[:1])
    *shown, asked = debates.prompts()[0].text.split("Question: Double ")[1:]
    assert len(shown) == 2
    for text in shown:
        assert f"\\boxed{{{2 * int(text.split()[0])}}}" in text
    assert "Example" not in asked
    with pytest.raises(ValueError, match="has a scorer alone: set shots=0"):
        DebateConfig("reasoning_gym:free,train=3", num_agents=2, shots=1).load()


def test_an_answer_with_odd_braces_is_shown_as_it_is_read() -> None:
    for answer in ("7", '{"a": 1}', "}{", "{{"):
        question = Question("one", "?", answer, "scored")
        [[text, other]] = worked(question, 2)
        assert text == other
        assert answer in spellings(last_box(text) or "")


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ImportError, match=r"pip install 'maporl\[reasoning\]'"):
        load_task("reasoning_gym:doubles")


def test_the_content_of_a_box_may_be_spelt() -> None:
    assert spellings(" 7 ") == ["7"]
    assert spellings('{"a": 1}') == ['{"a": 1}', '"a": 1']
    assert spellings("\\{1\\}")[1] == "{1}"
    assert spellings("\\text{red}")[-1] == "red"
