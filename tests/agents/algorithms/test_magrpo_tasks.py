r"""MAGRPO from the command line on every kind of joint task: what is paid, read, and learnt.

The models are random miniatures, which write no programs. So in training their messages are taken
from a menu, sample g of an agent its g-th text, and everything behind that is real: the game, the
sandbox, the tree, the credit and the update, which scores the menu under the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from miniatures import Checkpoint

from maporl_agents import cli
from maporl_agents.algorithms import magrpo
from maporl_agents.models.team import Team
from maporl_agents.play.speak import speak
from maporl_agents.records.run_log import read_metrics
from maporl_agents.training.experiment import build, load_team, read_config
from maporl_agents.training.make_game import make_verifier
from maporl_agents.trees import sample_tree
from maporl_agents.types import Completion, Request, StopReason
from maporl_agents.update.batching import Row, batch_of
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.sandbox import unavailable
from maporl_env.tasks import receipts
from maporl_env.tasks.summaries import STYLES, writing_reward
from maporl_env.types import Question

pytestmark = pytest.mark.thorough  # each runs a training

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no sandbox here: {unavailable()}"
)


@dataclass
class Menu:
    """Speaks in place of the sampler, and keeps what was read and what was learnt from.

    Attributes:
        texts: of each agent, by sample.
        read: prompts as text, by (turn, seat).
        rows: (policy, prompt, completion, credit) of everything that was learnt from.
    """

    texts: Sequence[Sequence[str]]
    read: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    turn: int = 0

    def speak(
        self,
        team: Team,
        asked: Sequence[Request],
        _sampling: Any,
        _stream: int,
    ) -> list[Completion]:
        """As `local_engine.sample`; agents come by turns: every A-th prompt is the next sample."""
        said = []
        agents, group = len(self.texts), len(self.texts[0])
        for place, one in enumerate(asked):
            tokenizer = team.base_of(one.policy).chat.tokenizer
            read = self.read.setdefault((self.turn, one.agent), [])
            read.append(tokenizer.decode(one.prompt))
            text = self.texts[one.agent][place // agents % group]
            ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
            assert tokenizer.decode(ids[:-1]) == text
            said.append(Completion(ids, (-1.0,) * len(ids), text, StopReason.EOS))
        self.turn += 1
        return said

    def credit(self, policy: str, text: str) -> set[float]:
        """Return the credits that a text of a policy got, at any node."""
        return {
            round(r.reward, 6) for r in self.rows if (r.policy, r.completion.text) == (policy, text)
        }


def train(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, menu: Menu, *flags: str
) -> tuple[Path, dict[str, Any]]:
    """Train one step from the command line; return the run folder and the step's metrics."""
    original = magrpo.credit_rows

    def credit_rows(*args: Any) -> tuple[list[Row], int]:
        rows, left_out = original(*args)
        menu.rows += rows
        return rows, left_out

    monkeypatch.setattr(sample_tree, "speak", partial(speak, engine=menu.speak))
    monkeypatch.setattr(magrpo, "credit_rows", credit_rows)
    usual = {
        "scheme": "magrpo",
        "runs": tmp_path,
        "name": "run",
        "steps": 1,
        "questions-per-step": 1,
        "team.model": model,
        "sampling.max-new-tokens": 4,
        "eval.questions": 1,
        "magrpo.group-size": len(menu.texts[0]),
        "magrpo.learning-rate": 1e-3,
        "magrpo.warmup-steps": 0,
    }
    argv = [word for name, value in usual.items() for word in (f"--{name}", str(value))]
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *argv, *flags])
    assert not stop.value.code
    [metrics] = read_metrics(tmp_path / "run")
    assert metrics["unscored_messages"] == 0
    assert metrics["zero_spread"] < 1
    return tmp_path / "run", metrics


@torch.no_grad()
def likelihoods(team: Team, rows: Sequence[Row]) -> list[float]:
    """Return the log-probability of every message that was learnt from."""
    scores = score_tokens(team, batch_of(team, rows), temperature=1.0)
    return [float(x) for x in scores.logprobs.sum(1)]


def learnt(folder: Path, rows: Sequence[Row]) -> float:
    """Return the sum over messages of credit times change of log-likelihood: above 0 is ascent."""
    fresh, _ = build(read_config(folder))
    before, after = (likelihoods(team, rows) for team in (fresh, load_team(folder)[1]))
    return sum(row.reward * (new - old) for row, old, new in zip(rows, before, after, strict=True))


# --- Programs of two, in the sandbox --------------------------------------------------------


def block(program: str) -> str:
    return f"```python\n{program}\n```"


GOOD_AUX, BAD_AUX = block("def aux(n):\n    return n + n"), block("def aux(n):\n    pass")
GOOD_MAIN = block("def double(n):\n    m = aux(n)\n    return m + 0")
BAD_MAIN = block("def double(n):\n    return 0")
PROGRAMS = ((GOOD_AUX, BAD_AUX), (GOOD_MAIN, BAD_MAIN))


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Four problems in the form of HumanEval, of which every fourth one is held out."""
    path = tmp_path / "HumanEval.jsonl"
    row = {
        "prompt": 'def double(n):\n    """Return twice n."""\n',
        "entry_point": "double",
        "test": (
            "def check(candidate):\n    assert candidate(0) == 0\n    assert candidate(4) == 8\n"
        ),
    }
    rows = [json.dumps({"task_id": f"Mini/{i}", **row}) for i in range(4)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


PUBLISHED = {
    # helper, function: .4 + .6 + .5 + all tests + .5 called + 1 more than a wrapper, of 4
    (GOOD_AUX, GOOD_MAIN): 4.0 / 4,
    (GOOD_AUX, BAD_MAIN): (0.4 + 0.6 + 0.5 + 0.5) / 4,  # one of two tests, no call
    (BAD_AUX, GOOD_MAIN): (0.6 + 0.5 + 0.0) / 4,  # None + 0 fails: no test, so no cooperation
    (BAD_AUX, BAD_MAIN): (0.6 + 0.5 + 0.5) / 4,
}
CORRECT_FIRST = PUBLISHED | {(GOOD_AUX, BAD_MAIN): (0.6 + 0.5 + 0.5) / 4}
"""The helper is paid where all tests hold, only."""


@needs_namespaces
@pytest.mark.parametrize(
    ("flags", "paid"),
    [((), PUBLISHED), (("--game.verifier", "cowriting:correct_first"), CORRECT_FIRST)],
)
def test_two_write_a_program_and_share_what_its_tests_pay(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    checkpoint: Checkpoint,
    problems: Path,
    flags: tuple[str, ...],
    paid: dict[tuple[str, str], float],
) -> None:
    """Crossed: four joint programs; a part's credit is the mean over the two that hold it."""
    menu = Menu(PROGRAMS)
    task = ("--game.task", "cowrite", "--game.data", str(problems), "--magrpo.joining", "cross")
    folder, metrics = train(monkeypatch, tmp_path, checkpoint("llama"), menu, *task, *flags)
    mean = sum(paid.values()) / 4
    assert metrics["joint_return"] == pytest.approx(mean)
    assert metrics["answers"] == 4
    for seat, texts in enumerate(PROGRAMS):
        for text in texts:
            held = [reward for parts, reward in paid.items() if parts[seat] == text]
            [credit] = menu.credit(f"agent_{seat}", text)
            assert credit == pytest.approx(sum(held) / 2 - mean, abs=1e-6)
    assert learnt(folder, menu.rows) > 0


@needs_namespaces
def test_the_second_turn_reads_what_the_tests_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Checkpoint, problems: Path
) -> None:
    """Aligned, G = 2, T = 2: a good and a bad program, and after each of them both again."""
    menu = Menu(PROGRAMS)
    task = ("--game.task", "cowrite", "--game.data", str(problems), "--game.num-turns", "2")
    flags = (*task, "--magrpo.joining", "aligned", "--game.feedback", "tests")
    folder, metrics = train(monkeypatch, tmp_path, checkpoint("llama"), menu, *flags)
    good, bad = PUBLISHED[GOOD_AUX, GOOD_MAIN], PUBLISHED[BAD_AUX, BAD_MAIN]
    later = (good + bad) / 2
    assert metrics["joint_return"] == pytest.approx((good + bad) / 2 + later)
    assert (metrics["score/turn_1"], metrics["score/turn_2"]) == pytest.approx((later, later))
    assert (metrics["nodes"], metrics["answers"]) == (3, 12)
    after_good, after_bad = (menu.read[1, 0][2 * i] for i in (0, 1))
    assert "All tests hold." in after_good
    assert "1 of 2 tests hold." in after_bad
    for seat in (0, 1):
        told = " ".join(menu.read[1, seat])
        own, partner = PROGRAMS[seat][0], PROGRAMS[1 - seat][0]
        assert own.splitlines()[2] in told
        assert partner.splitlines()[2] not in told
    assert menu.credit("agent_0", GOOD_AUX) == {round((good - bad) / 2, 6)}
    assert learnt(folder, menu.rows) > 0


# --- The three kinds of feedback, on the built-in task ---------------------------------------

BILLS = (
    ("3 * 6 = 18 , 2 * 9 = 18 , \\boxed{ 36 }", "3 * 1 = 3 , 2 * 9 = 18 , \\boxed{ 21 }"),
    ("3 * 6 = 18 , 2 * 9 = 18 , \\boxed{ 36 }", "3 * 1 = 3 , 2 * 4 = 8 , \\boxed{ 11 }"),
)


@pytest.fixture
def bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the user's, and one question that the menu above answers."""
    (tmp_path / "inspector_of_bills.py").write_text(
        "def tell(question, joint):\n    return 'checked ' + question.id + ' : ' + joint[:9]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    one = Question("bill", "Mia buys 3 pen and 2 bed . how much ?", "36")
    monkeypatch.setattr(receipts, "questions", lambda split: iter([one]))
    receipts.load.cache_clear()
    yield
    receipts.load.cache_clear()


@pytest.mark.parametrize("feedback", ["", "inspector_of_bills:tell"])
@pytest.mark.parametrize("joining", ["aligned", "cross"])
def test_plain_requests_and_a_function_of_ones_own(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    checkpoint: Checkpoint,
    bill: None,
    feedback: str,
    joining: str,
) -> None:
    """Two turns; nothing of the partner is read but what the function shows."""
    menu = Menu(BILLS)
    flags = ("--game.num-turns", "2", "--game.feedback", feedback, "--magrpo.joining", joining)
    folder, metrics = train(monkeypatch, tmp_path, checkpoint("llama"), menu, *flags)
    # Lines on which both agree: (36, 36) both; (36, 11) none; (21, 36) the second; (21, 11) the
    # first. Aligned: 1 and .5.
    rewards = (1.0, 0.0, 0.5, 0.5) if joining == "cross" else (1.0, 0.5)
    mean = sum(rewards) / len(rewards)
    assert metrics["joint_return"] == pytest.approx(2 * mean)
    assert metrics["nodes"] == 1 + len(rewards)
    assert metrics["answers"] == 4 * (1 + len(rewards))
    shown = 'checked bill : ["3 * 6 ='
    second = menu.read[1, 0] + menu.read[1, 1]
    assert all((shown in text or "checked bill" in text) == bool(feedback) for text in second)
    assert all("think once more" in text for text in second)
    assert not any("11 }" in text for text in menu.read[1, 0])  # the partner's alone
    assert learnt(folder, menu.rows) > 0


# --- Summaries of one's own texts -------------------------------------------------------------

SHORT_ONE = "The old harbour town lost its bridge after the storm last winter ."
DETAILED = (
    "After the winter storm the harbour town lost its old bridge . However , volunteers soon "
    "built a ferry because people needed daily bread , and later engineers measured every pier ."
)
RAMBLING = "Bridge bridge bridge ."


@pytest.mark.parametrize("task", ["summaries", "sections"])
def test_pairs_of_summaries_of_local_texts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Checkpoint, task: str
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"Story {i}: a bridge fell."}) + "\n" for i in range(10))
    )
    first, second = SHORT_ONE, DETAILED
    if task == "sections":  # 128 to 256 words each
        first, second = (" ".join([text] * n) for text, n in ((SHORT_ONE, 11), (DETAILED, 5)))
    menu = Menu(((first, RAMBLING), (second, RAMBLING)))
    folder, metrics = train(
        monkeypatch, tmp_path, checkpoint("llama"), menu, "--game.task", task,
        "--game.data", str(texts), "--magrpo.joining", "aligned",
    )  # fmt: skip
    style = STYLES["tldr" if task == "summaries" else task]
    good = writing_reward(first, second, style) / 3
    assert good > 0.5 / 3
    assert metrics["joint_return"] == pytest.approx(good / 2)  # the other pair is too short: 0
    assert menu.credit("agent_0", first) == {round(good / 2, 6)}
    assert menu.credit("agent_1", RAMBLING) == {round(-good / 2, 6)}
    assert all("Story" in text for text in menu.read[0, 0])
    assert learnt(folder, menu.rows) > 0


@pytest.mark.parametrize("verifier", ["cowriting:wrong_first", "cowriting:1"])
def test_an_unknown_way_to_score_programs_is_refused(verifier: str) -> None:
    with pytest.raises(ValueError, match="cowriting or cowriting:correct_first"):
        make_verifier(verifier)
