"""One's own reward, task and protocol from the command line: trained, played, measured, resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maporl_agents.bridges.bench_players import players_of
from maporl_agents.cli import main
from maporl_agents.commands import chosen_team
from maporl_agents.commands.verifier import served
from maporl_agents.config import GameConfig
from maporl_agents.training.make_game import make_verifiers, protocol_options
from maporl_env.tasks import files
from maporl_env.types import Question

MINE = """
from dataclasses import dataclass
from maporl_env.protocols import SequentialDebate
from maporl_env.tasks import files
from maporl_env.types import Question

def short(questions, responses):
    return [1.0 if len(text) < 40 else 0.5 for text in responses]

class Careful:
    def score(self, questions, responses):
        return [0.25 for _ in responses]

class Costly:
    def __init__(self, price):
        self.price = price

def asked():
    words = "Tom buys 2 ink and 1 bag . how much ? in \\\\boxed{ }"
    return [Question(f"q{i}", words, "31", "number") for i in range(4)]

@dataclass(frozen=True)
class Slow(SequentialDebate):
    word: str = ""

    def news(self, seat, turn, history):
        return SequentialDebate.news(self, seat, turn, history) + self.word * bool(turn)

word = "not callable"
"""


@pytest.fixture
def here(work_folder: Path) -> Path:
    (work_folder / "mine.py").write_text(MINE)
    return work_folder


def maporl(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out + printed.err


TRAIN = (
    *("train", "--name", "mine", "--steps", "1", "--questions-per-step", "2"),
    *("--game.verifier", "mine.py:short", "--game.task", "mine.py:asked"),
    *("--game.protocol", "mine.py:Slow", "--game.protocol-options", "word=say"),
    *("--eval.questions", "2", "--ppo.minibatches", "1", "--game.num-turns", "2"),
    *("--sampling.max-new-tokens", "6"),
)


@pytest.mark.thorough
def test_a_run_of_ones_own_parts_is_played_measured_and_resumed(
    here: Path, capsys, monkeypatch
) -> None:
    code, said = maporl(capsys, *TRAIN)
    assert code == 0, said
    game = json.loads((here / "runs/mine/config.json").read_text())["game"]
    assert game["verifier"] == f"{here}/mine.py:short"
    assert game["protocol_options"] == ["word=say"]
    metrics = json.loads((here / "runs/mine/metrics.jsonl").read_text())
    assert metrics["score/turn_1"] in (0.5, 0.625, 0.75, 0.875, 1.0)
    assert metrics["score/turn_1"] != metrics["accuracy/turn_1"]

    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, said = maporl(capsys, "eval", "--run", str(here / "runs/mine"), "--limit", "2")
    assert code == 0, said
    assert "mine.py:asked,2questions" in "".join(said.split())  # the title may be wrapped
    assert "score: mean score of the verifier" in " ".join(said.split())
    code, said = maporl(capsys, "play", "--run", str(here / "runs/mine"), "--index", "0")
    assert code == 0, said
    assert said.count("\nTurn 2, agent_") == 2
    assert "(score 1.00" in said or "(score 0.50" in said  # ", cut" may follow
    again = ("train", "--resume", str(here / "runs/mine"), "--steps", "2", "--force")
    code, said = maporl(capsys, *again)
    assert code == 0, said
    code, said = maporl(capsys, "report", str(here / "runs/mine"))
    assert code == 0, said

    (here / "mine.py").unlink()
    from maporl_env import user_functions

    monkeypatch.setattr(user_functions, "_module_of_file", None)
    code, said = maporl(capsys, "train", "--resume", str(here / "runs/mine"))
    assert code == 2
    assert "there is no file" in said


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("mine.py:shrot", "verifier .*did you mean 'short'"),
        ("mine.py:word", "verifier .* is str: it must be a function"),
        ("mine.py:Costly", "cannot be made: it raised TypeError"),
        ("nowhere.py:short", "there is no file nowhere.py"),
        ("mine.py", "unknown verifier 'mine.py': choose one of key.*module:name or file.py:name"),
        ("learnt:folder", "No module named 'learnt'"),
    ],
)
def test_a_verifier_that_cannot_be_had(here: Path, name: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_verifiers([name])


def test_a_class_is_made_a_verifier(here: Path) -> None:
    [verifier] = make_verifiers(["mine.py:Careful"])
    assert verifier.score([Question("q", "?", "1", "number")], ["a"]) == [0.25]


def test_options_of_a_protocol_are_read_as_json_or_text() -> None:
    read = protocol_options(["depth=2", "shout=true", "word=once more", "at=a=b"])
    assert read == {"depth": 2, "shout": True, "word": "once more", "at": "a=b"}
    for wrong, match in {"depth": "KEY=VALUE", "a b=2": "KEY=VALUE"}.items():
        with pytest.raises(ValueError, match=match):
            protocol_options([wrong])
    with pytest.raises(ValueError, match="set depth twice"):
        protocol_options(["depth=1", "depth=2"])


def test_flags_change_the_game_of_a_run(here: Path, monkeypatch) -> None:
    from maporl_agents.commands.eval import Eval
    from maporl_agents.config import Sampling, TrainConfig

    own = TrainConfig(
        game=GameConfig(task="coins", num_agents=3, num_turns=2, protocol="sequential"),
        sampling=Sampling(max_new_tokens=7, stop=("x",)),
    )
    monkeypatch.setattr(chosen_team, "read_config", lambda folder: own)
    game, sampling = chosen_team.game_and_sampling(Eval(run=Path("r")))
    assert (game, sampling) == (own.game, own.sampling)
    game, sampling = chosen_team.game_and_sampling(
        Eval(run=Path("r"), task="sharing", agents=2, max_new_tokens=9, verdicts="key")
    )
    assert (game.task, game.num_agents, game.num_turns) == ("sharing", 2, 2)
    assert (game.reward_feedback, game.feedback_verifier) == (True, "key")
    assert (sampling.max_new_tokens, sampling.stop) == (9, ("x",))
    game, sampling = chosen_team.game_and_sampling(Eval())
    assert (game, sampling.max_new_tokens) == (GameConfig(), 32)


def test_ones_own_reward_is_served_and_ones_own_agents_are_scored(here: Path) -> None:
    assert served("mine.py:short")([], ["a"]) == [1.0]  # type: ignore[operator]
    with pytest.raises(ValueError, match="there is no file nowhere"):
        served("nowhere.py:short")
    with pytest.raises(ValueError, match="is not served, because it runs programs"):
        served("tests:partial")
    (here / "talk.py").write_text("def say(prompts): return ['?'] * len(prompts)\n")
    assert players_of("talk.py:say").about["function"] == "talk.py:say"


def test_a_person_is_told_who_plays_and_how_to_answer(here: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: print(prompt) or r"\boxed{ 9 }")
    few = ("--turns", "1", "--max-new-tokens", "4", "--index", "0")
    code, said = maporl(capsys, "play", "--human", *few)
    assert code == 0
    said = " ".join(said.split())
    assert "You are agent_1. agent_0: a model." in said
    assert r"Write your final answer as \boxed{...}" in said
    assert "turn 1: you, agent_1, read" in said
    assert "agent_1 >" in said
    assert "agent_2" not in said


def test_a_run_reads_its_task_and_makes_its_verifier_once(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, load = [], files.load
    monkeypatch.setattr(files, "load", lambda path: read.append(path) or load(path))
    words = "Tom buys 2 ink and 1 bag . how much ? in \\boxed{ }"
    rows = [{"question": words, "answer": 9, "split": name} for name in ("train", "test") * 2]
    (here / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (here / "counted.py").write_text(
        "made = []\n"
        "class Judge:\n"
        "    def __init__(self):\n"
        "        made.append(self)\n"
        "        open('made.txt', 'a').write('x')\n"
        "    def score(self, questions, responses):\n"
        "        return [0.5 for _ in responses]\n"
    )
    own = ("--game.task", "asked.jsonl", "--game.verifier", "counted.py:Judge")
    code, said = maporl(capsys, *TRAIN, *own)
    assert code == 0, said
    assert len(read) == 1  # by the command, before torch is loaded; then handed down
    assert (here / "made.txt").read_text() == "x"
