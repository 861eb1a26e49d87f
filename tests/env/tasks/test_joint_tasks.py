"""Tasks of joint answers: agreement on a bill, pairs of summaries, programs written by two."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import cast

import pytest

from maporl_env.answers import extract_answer
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.protocols import JointAnswer
from maporl_env.sandbox import Job, Result, Sandbox, unavailable
from maporl_env.tasks import cowrite, load_task, receipts, shopping, summaries
from maporl_env.tasks.cowrite import CoWriting, Structure, cowriting_reward, look_into
from maporl_env.tasks.summaries import STYLES, Writing, credit, transition_score, writing_reward
from maporl_env.types import Question
from maporl_env.verifiers.programs import CodeTests, Diagnostics, Suite

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no sandbox here: {unavailable()}"
)


def block(program: str) -> str:
    return f"```python\n{program}\n```"


# --- What is read ---------------------------------------------------------------


@pytest.mark.parametrize("show_parts", [True, False])
def test_a_part_reaches_the_partner_only_if_it_is_shown(show_parts: bool) -> None:
    batch = BatchedDebate(
        DebateConfig(num_agents=2, num_turns=2, protocol="joint", show_parts=show_parts), 1
    )
    batch.reset()
    batch.step(["mine", "yours"])
    reads = {prompt.agent: prompt.text for prompt in batch.prompts()}
    assert "mine" in reads["agent_0"]
    assert ("yours" in reads["agent_0"]) == show_parts
    assert ("mine" in reads["agent_1"]) == show_parts


def test_only_feedback_carries_what_is_not_shown() -> None:
    protocol = JointAnswer(
        num_turns=2, show_parts=False, feedback=lambda _, text: f"heard: {text.upper()}"
    )
    batch = BatchedDebate(DebateConfig(num_agents=2, protocol=protocol), 1)
    batch.reset()
    batch.step(["mine", "yours"])
    reads = [prompt.text for prompt in batch.prompts()]
    assert all("heard: MINE\nYOURS" in text for text in reads)
    assert "yours" not in reads[0]


def test_roles_differ_and_one_agent_alone_has_none(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "Once upon a time."}\n', encoding="utf-8")
    for agents, mark in ((2, True), (1, False)):
        config = DebateConfig(
            task="summaries", data=path, num_agents=agents, num_turns=1, protocol="joint"
        )
        batch = BatchedDebate(config, 1)
        batch.reset()
        texts = [prompt.text for prompt in batch.prompts()]
        assert (summaries.ROLES["tldr"][0] in texts[0]) == mark
        assert all("Once upon a time." in text for text in texts)


# --- Receipts -----------------------------------------------------------------


def bill(*prices: int) -> str:
    return shopping.solution((3, 2), (prices[0], prices[1]))


QUESTION = Question("q", "Mia buys 3 pen and 2 bed . how much ?", "36")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([bill(6, 9), bill(6, 9)], 1.0),
        ([bill(1, 2), bill(1, 2)], 1.0),  # agreeing on what is wrong is agreeing
        ([bill(6, 9), bill(6, 2)], 0.5),
        ([bill(9, 6), bill(6, 9)], 0.0),
        ([shopping.solution((1, 1), (6, 9))] * 2, 0.0),  # not what was asked for
        (["", ""], 0.0),
        ([bill(6, 9), "3 * 6 ="], 0.5),
        ([bill(6, 9), bill(6, 9), bill(6, 1)], 0.5),
    ],
)
def test_agreement(parts: list[str], expected: float) -> None:
    assert receipts.agreement(QUESTION, parts) == expected


def test_receipts_ask_each_agent_for_one_item_it_knows() -> None:
    task = load_task("receipts")
    seen = {
        split: {tuple(q.prompt.split()[3:7:3]) for q in task.split(split)} for split in task.splits
    }
    assert seen["train"].isdisjoint(seen["test"] | {pair[::-1] for pair in seen["test"]})
    for pair in seen["train"] | seen["test"]:
        assert [sum(item in shopping.known_items(a) for item in pair) for a in (0, 1)] == [1, 1]
    assert {item for pair in seen["train"] for item in pair} == set(
        itertools.chain(*receipts.ITEMS)
    )
    parts = [task.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [720, 144, 288]
    pairs = [{frozenset(q.id.split("/")[1].split("-")[1::2]) for q in part} for part in parts]
    assert len(set().union(*pairs)) == sum(map(len, pairs)) == 64
    assert set().union(*pairs[0]) == set().union(*receipts.ITEMS)  # each item is trained on


def test_receipts_are_scored_together_and_read_by_the_key() -> None:
    batch = BatchedDebate(
        DebateConfig(task="receipts", num_agents=2, num_turns=1, protocol="joint"), 1
    )
    batch.reset([QUESTION])
    batch.step([bill(6, 9), bill(6, 4)])
    assert [message.score for message in batch.transcripts[0].messages] == [0.5, 0.5]
    assert batch.debates[0].outcome() == (26,)  # the last box of the joint text


# --- Summaries -------------------------------------------------------------------


def test_a_band_by_hand() -> None:
    band = STYLES["tldr"].length
    values = [1.0, 1.1, 1.35, 1.6, 3.2, 4.1, 5.0, 5.1]
    # (1.35 - 1.1) / .5 = .5 and 1 - (4.1 - 3.2) / 1.8 = .5
    assert [credit(value, band) for value in values] == [
        None,
        pytest.approx(0),
        pytest.approx(0.5),
        1.0,
        1.0,
        pytest.approx(0.5),
        pytest.approx(0),
        None,
    ]
    assert credit(1e9, STYLES["tldr"].variety) == 1.0


def test_transition_words_are_whole_words() -> None:
    assert transition_score("A vast sofa.") == 0  # "as" and "so" stand in it as letters only
    assert transition_score("It rained, so we left.") == pytest.approx(0.4)
    assert transition_score("First it rained, however, so we left.") == pytest.approx(0.5)


SHORT = "red blue green pink gold gray teal mint"  # 8 words, 39 characters
LONG = "red one two three four five six seven eight nine ten eleven twelve however 1 2 3 4"


def test_a_pair_by_hand() -> None:
    # q = 82 / 39 = 2.10: full; u = 18 / 8: full; J = 1 / (8 + 18 - 1) = .04: full; one kind: .4
    assert writing_reward(SHORT, LONG, STYLES["tldr"]) == pytest.approx(0.5 + 1 + 0.5 + 0.16 + 0.6)
    assert writing_reward("red", LONG, STYLES["tldr"]) == 0  # the first level is missed
    assert writing_reward(LONG, SHORT, STYLES["tldr"]) == 0.5  # the second ends the sum
    # q = 62 / 39 = 1.59 and u = 1: the second level in part, the third missed
    same = f"{SHORT} {SHORT[:22]}"
    expected = 0.5 + (len(same) / 39 - 1.1) / 0.5
    assert writing_reward(SHORT, same, STYLES["tldr"]) == pytest.approx(expected)
    assert writing_reward("x" * 30_000, LONG, STYLES["tldr"]) == 0


def test_the_section_style_wants_long_parts() -> None:
    words = [f"w{i}" for i in range(200)]
    first, second = " ".join(words[:130]), " ".join([*words[20:200], "because"])
    # q = 5/4-ish, u = 181 / 130 = 1.39 -> .5 (1.7 - u) / .4; J = 110 / 200 (because is no content)
    q, u = len(second) / len(first), 181 / 130
    expected = 0.5 + min(1, (q - 0.8) / 0.5) + 0.5 * (1.7 - u) / 0.4 + 0.4 * 0.4 + 0.6
    assert writing_reward(first, second, STYLES["sections"]) == pytest.approx(expected)
    assert writing_reward(SHORT, LONG, STYLES["sections"]) == 0


def test_the_verifier_divides_by_three_and_wants_two_parts() -> None:
    [score] = Writing().score([QUESTION], [json.dumps([SHORT, LONG])])
    assert score == pytest.approx(2.76 / 3)
    with pytest.raises(ValueError, match="two parts, not 3"):
        Writing().score([QUESTION], [json.dumps([SHORT, LONG, ""])])
    with pytest.raises(ValueError, match="unknown style"):
        Writing("haiku")  # type: ignore[arg-type]


def test_texts_come_from_a_file_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(f'{{"text": "post {i}"}}\n' for i in range(20)), encoding="utf-8")
    task = load_task("sections", path)
    assert [q.prompt for q in task.split("test")] == ["post 9", "post 19"]
    assert [q.prompt for q in task.split("validation")] == ["post 8", "post 18"]
    assert len(task.split("train")) == 16
    assert len({q.id for part in task.splits.values() for q in part}) == 20
    with pytest.raises(ValueError, match="give data"):
        load_task("summaries")
    path.write_text('{"text": "a"}\n{"title": "b"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 2: no text"):
        load_task("summaries", path)


# --- Programs --------------------------------------------------------------------

AUX = "def aux(n):\n    return 2 * n"
MAIN = "def four(n):\n    x = aux(n)\n    return aux(x)"
SUITE = Suite("four", "", "assert four(1) == 4\nassert four(3) == 12\n")
FOUR = Question("four", "four times n", str(SUITE), kind="code")


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (MAIN, Structure(True, True, True, True, False, False)),
        ("def four(n):\n    return 4 * n", Structure(True, True, True)),
        ("def four(n):\n    'doc'\n    return aux(n)", Structure(True, True, True, True, True)),
        ("def four(n):\n    y = aux(n)\n    return y", Structure(True, True, True, True, True)),
        ("def four(n):\n    aux(n)\n    return 4", Structure(True, True, True, True, False, True)),
        ("def five(n):\n    return aux(n)", Structure(True, True)),
        ("def four(n) return", Structure(False, True)),
    ],
)
def test_the_structure_of_a_program(main: str, expected: Structure) -> None:
    assert look_into(f"{AUX}\n\n{main}", "four") == expected


def test_a_helper_without_a_value_is_none_and_hostile_text_is_harmless() -> None:
    assert not look_into("def aux(n):\n    return", "four").helper
    for text in ("(" * 15_000, "-" * 15_000 + "1", "x\0", "\\", "def " * 4_000, "a." * 9_000 + "a"):
        assert not look_into(text, "four").main
    assert look_into(MAIN + " " * 30_000, "four") == Structure()


@pytest.mark.parametrize(
    ("structure", "share", "expected", "correct_first"),
    [
        (Structure(), 0, 0, 0),
        (Structure(helper=True), 0, 0.4, 0),
        (Structure(helper=True, main=True), 0, 1.0, 0.6),
        (Structure(True, True, True), 0, 1.5, 1.1),
        (Structure(True, True, True), 1, 2.5, 2.5),
        (Structure(True, True, True, calls=True), 0, 1.5, 1.1),
        (Structure(True, True, True, calls=True), 0.5, 3.5, 1.6),
        (Structure(True, True, True, calls=True), 1, 4.0, 4.0),
        (Structure(True, True, True, calls=True, wrapper=True), 1, 3.0, 3.0),
        (Structure(True, True, True, calls=True, ignores=True), 1, 3.5, 3.5),
    ],
)
def test_the_reward_of_a_program(
    structure: Structure, share: float, expected: float, correct_first: float
) -> None:
    assert cowriting_reward(structure, share) == pytest.approx(expected)
    assert cowriting_reward(structure, share, correct_first=True) == pytest.approx(correct_first)


def test_working_together_outweighs_the_tests_unless_they_come_first() -> None:
    """All ways to write a program that runs, at 1, 2, ... 8 of 8 tests."""
    looks = [
        Structure(True, helper, True, calls, wrapper, ignores)
        for helper, calls, wrapper, ignores in itertools.product([False, True], repeat=4)
    ]

    def span(share: float, correct_first: bool) -> tuple[float, float]:
        rewards = [cowriting_reward(look, share, correct_first=correct_first) for look in looks]
        return min(rewards), max(rewards)

    for passed in range(8):
        assert span(passed / 8, True)[1] < span((passed + 1) / 8, True)[0]
    assert span(1 / 8, False)[1] > span(1.0, False)[0]


def test_joined_programs_are_one_program_whatever_stands_in_them() -> None:
    joined = cowrite.join_programs([block(AUX) + "\nand so on", "no program", block(MAIN)])
    assert extract_answer(joined, "code") == f"{AUX}\n\n{MAIN}"
    assert extract_answer(cowrite.join_programs(["", "x"]), "code") is None
    fenced = 'def aux(n):\n    return """\n```\n"""'
    assert extract_answer(cowrite.join_programs([f"````python\n{fenced}\n````"]), "code") == fenced


@needs_namespaces
def test_programs_of_two_are_run_and_scored() -> None:
    def score(*parts: str) -> float | None:
        return CoWriting().score([FOUR], [cowrite.join_programs(list(map(block, parts)))])[0]

    assert score(AUX, MAIN) == 1.0
    assert score(AUX, "def four(n):\n    return 4 * n") == 2.5 / 4
    assert score(AUX, "def four(n):\n    return aux(n) + 2") == pytest.approx(3.5 / 4)  # 4, 8
    assert score("def aux(n): return", "def four(n):\n    import os; os._exit(0)") == 1.1 / 4
    assert score(AUX, "def four(n:") == 0.4 / 4
    joined = cowrite.join_programs([block(AUX), block(MAIN)])
    assert CodeTests().score([FOUR], [joined]) == [1.0]


@needs_namespaces
def test_diagnostics_tell_how_many_tests_hold() -> None:
    tell = Diagnostics()
    assert tell(FOUR, cowrite.join_programs([block(AUX), block(MAIN)])) == "All tests hold."
    assert tell(FOUR, block("def four(n):\n    return 4")).startswith("1 of 2 tests hold.")
    assert tell(FOUR, "no program") == "There is no program in the answer."


def test_diagnostics_forget_what_the_sandbox_lost() -> None:
    """A sandbox that fails once is asked again; an answer it gave is not asked for twice."""
    outcomes = iter(["lost", "passed"])

    class Faulty:
        def run(self, _: Job) -> Result:
            return Result(next(outcomes))

    tell = Diagnostics(cast("Sandbox", Faulty()))
    answer = block("def four(n):\n    return 4 * n")
    said = [tell(FOUR, answer) for _ in range(3)]
    assert said == ["The tests could not be run.", "All tests hold.", "All tests hold."]


@needs_namespaces
def test_humaneval_for_two(data_dir: Path) -> None:
    if not (data_dir / "humaneval").is_dir():
        pytest.skip("the data set humaneval is not here")
    task = load_task("cowrite", data_dir / "humaneval")
    parts = [task.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [103, 20, 41]
    assert len({q.id for part in parts for q in part}) == 164
    assert {q.id for q in task.split("train")}.isdisjoint({q.id for q in task.split("test")})
    assert task.split("test")[0].kind == "code"
