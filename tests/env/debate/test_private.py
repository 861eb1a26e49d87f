"""Where private texts and references stand in views, files and rows, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from maporl_env import debate_v0, prompts
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.bridges import trl
from maporl_env.prompts import Template
from maporl_env.protocols import JointAnswer, SimultaneousDebate
from maporl_env.tasks import load_task
from maporl_env.tasks.base import Task
from maporl_env.types import Question

from .private_questions import HIDDEN, mark, told


@pytest.mark.parametrize("history", ["all", "last", "none"])
def test_the_private_text_stands_behind_the_question_in_every_turn(history: str) -> None:
    env = debate_v0.parallel_env(task=[told(2)], num_agents=2, num_turns=3, history=history)
    observations, _ = env.reset(seed=0)
    for turn in range(3):
        for seat, agent in enumerate(env.agents):
            asked = f"What is it?\nYou alone were told: Your word: {mark(seat)}\n"
            assert observations[agent].startswith(f"Question: {asked}")
            times = {"all": turn + 1, "last": min(turn, 1) + 1, "none": 1}[history]
            assert observations[agent].count(asked) == times
        observations, *_ = env.step(dict.fromkeys(env.agents, "hm"))


@pytest.mark.parametrize("history", ["all", "last", "none"])
def test_whoever_reads_others_before_its_first_message_is_told_again(history: str) -> None:
    """In a sequential debate the question stands before and behind the first agent's message."""
    options: dict[str, Any] = {"protocol": "sequential", "history": history}
    batch = BatchedDebate(DebateConfig(task=[told(2)], num_agents=2, **options), 1)
    batch.reset()
    batch.step(["hm"])
    [prompt] = batch.prompts()
    assert prompt.text.count(f"What is it?\nYou alone were told: Your word: {mark(1)}\n") == 2


def test_words_of_the_template_and_no_words_without_a_text() -> None:
    words = Template(private=" ({text})", again="", cue="")
    assert prompts.ask(words, told(2), 1).startswith(
        f"Question: What is it? (Your word: {mark(1)})"
    )
    bare = Template()
    assert prompts.opening(bare, told(2)) == prompts.opening(bare, told(2, silent=[0]), 0)
    assert mark(1) not in prompts.opening(bare, told(2))
    with pytest.raises(ValueError, match="'private' uses"):
        Template(private="{question}")


def test_equal_views_are_equal_private_texts() -> None:
    batch = BatchedDebate(DebateConfig(task=[told(3, silent=[1, 2])], num_agents=3), 1)
    batch.reset()
    first, second, third = (prompt.view for prompt in batch.prompts())
    assert first != second == third


@pytest.mark.parametrize("texts", [("a",), ("a", "b", "c")])
def test_another_number_of_private_texts_is_refused(texts: tuple[str, ...]) -> None:
    question = Question("q/1", "How many?", "4", private=texts)
    says = f"question 'q/1' has private texts for {len(texts)} agents, not for 2"
    with pytest.raises(ValueError, match=says):
        debate_v0.env(task=[Question("q/0", "How many?", "4"), question], num_agents=2)
    with pytest.raises(ValueError, match=says):
        gymnasium.make("maporl/Debate-v0", task=[question], num_agents=2)
    batch = BatchedDebate(DebateConfig(task=[told(2)], num_agents=2), 1)
    with pytest.raises(ValueError, match=says):
        batch.reset([question])
    env = debate_v0.parallel_env(task=[told(2)], num_agents=2)
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=says):
        env.reset(options={"question": question})
    assert {agent: env.unwrapped.observe(agent) for agent in env.agents} == before
    task = Task("two", {"train": [told(2)], "other": [question]})
    assert debate_v0.env(task=task, num_agents=2) is not None  # only the split that is played


def test_a_pinned_question_may_have_private_texts() -> None:
    env = debate_v0.parallel_env(task=[Question("q", "?", "1")], num_agents=2)
    pinned = {"prompt": "Sum?", "answer": "7", "private": ["Three.", "Four."], "hidden": HIDDEN}
    observations, _ = env.reset(options={"question": pinned})
    assert "Three." in observations["agent_0"]
    assert "Four." not in observations["agent_0"]
    with pytest.raises(ValueError, match="private must be a list of texts"):
        env.reset(options={"question": {**pinned, "private": "Three."}})


def test_verifiers_read_everything_and_feedback_nothing() -> None:
    seen: list[Question] = []

    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        seen.extend(questions)
        return [1.0] * len(responses)

    def feedback(question: Question, text: str) -> str:
        assert (question.private, question.hidden) == ((), "")
        return f"{question.answer} fed back"

    env = debate_v0.parallel_env(
        task=[told(2)], num_agents=2, num_turns=2, protocol="joint", verifier=verifier,
        feedback=feedback,
    )  # fmt: skip
    env.reset(seed=0)
    observations, *_ = env.step(dict.fromkeys(env.agents, "hm"))
    assert "7 fed back" in observations["agent_1"]
    assert {q.hidden for q in seen} == {HIDDEN}
    assert {q.private for q in seen} == {told(2).private}


def test_lone_surrogates_of_private_texts_are_replaced() -> None:
    debate = DebateConfig(task=[told(1)], num_agents=1).load().debate()
    debate.reset(Question("q", "?", "1", private=("a\ud800b",)))
    assert "a\ufffdb" in debate.observation("agent_0")


def test_order_of_agents_changes_nothing_but_who_is_told_what() -> None:
    """With the private texts swapped, the agents' first observations are swapped."""
    swapped = replace(told(2), private=told(2).private[::-1])
    both = []
    for question in (told(2), swapped):
        for protocol in (SimultaneousDebate(), JointAnswer()):
            env = debate_v0.parallel_env(task=[question], num_agents=2, protocol=protocol)
            both.append(env.reset(seed=0)[0])
    for one, other in zip(both[:2], both[2:], strict=True):
        assert (one["agent_0"], one["agent_1"]) == (other["agent_1"], other["agent_0"])


def test_own_files_have_the_same_keys(tmp_path: Any) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(told(2).to_dict()) + "\n" + json.dumps({"prompt": "x", "answer": 1}))
    first, second = load_task(file).split("train")
    assert first == told(2)
    assert (second.private, second.hidden) == ((), "")
    table = tmp_path / "table.csv"
    table.write_text('Prompt,answer,private,hidden\nx,1,"[""a"", """"]",ref\ny,2,,\n')
    first, second = load_task(table).split("train")
    assert (first.private, first.hidden) == (("a", ""), "ref")
    assert (second.private, second.hidden) == ((), "")


@pytest.mark.parametrize(
    "row", [{"private": "a"}, {"private": ["a", 1]}, {"private": {"a": "b"}}, {"hidden": 3}]
)
def test_a_wrong_column_is_told_with_its_place(tmp_path: Any, row: dict[str, Any]) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"prompt": "x", "answer": "1", **row}))
    with pytest.raises(ValueError, match=r"train.jsonl, line 1: (private|hidden) must be") as error:
        load_task(file)
    assert "\n" not in str(error.value)


def test_rows_of_trl_carry_the_reference_to_the_verifier() -> None:
    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        return [float(q.hidden == HIDDEN) for q in questions]

    [row, bare] = trl.rows([told(2), Question("q", "?", "1")], agent=1)
    assert row["prompt"][-1]["content"].endswith(mark(1))
    assert (row["hidden"], bare["hidden"]) == (HIDDEN, "")
    assert "hidden" not in trl.rows([Question("q", "?", "1")])[0]
    columns = {name: [row[name], bare[name]] for name in row if name != "prompt"}
    reward = trl.reward_function(verifier)
    assert reward([row["prompt"], bare["prompt"]], ["a", "b"], **columns) == [1.0, 0.0]
    with pytest.raises(ValueError, match="'told' has private texts for 2 agents, and none for 2"):
        trl.rows([told(2)], agent=2)


def test_a_reference_that_every_agent_would_read_is_refused(tmp_path: Path) -> None:
    """A short one may stand in a prompt by chance, a long one does not."""
    told_in_prompt = "Add up. def total(xs): return sum(xs)"
    with pytest.raises(ValueError, match="question 'q' stands in its prompt, where every agent"):
        Question("q", told_in_prompt, "7", hidden=" def total(xs): return sum(xs)\n")
    assert Question("q", "What is 4 + 5?", "9", hidden="4 + 5").hidden
    rows = tmp_path / "rows.jsonl"
    row = {"prompt": told_in_prompt, "answer": "7", "hidden": "def total(xs): return sum(xs)"}
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 1: .*stands in its prompt"):
        load_task(rows)


def test_private_texts_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "note.txt").write_text("Ann has ``` 3.\n", encoding="utf-8")
    (tmp_path / "solution.py").write_text("def f():\n    return 7\n", encoding="utf-8")
    row = {"prompt": "How many?", "answer": "7", "hidden": {"file": "solution.py"}}
    row["private"] = ["", {"file": "ann/note.txt"}]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    [question] = load_task(rows).split("train")
    assert question.private == ("", "the file ann/note.txt:\n````\nAnn has ``` 3.\n````")
    assert question.hidden == "the file solution.py:\n```\ndef f():\n    return 7\n```"
    env = debate_v0.parallel_env(task=[question], num_agents=2)
    observations, _ = env.reset(seed=0)
    assert ["Ann has" in observations[agent] for agent in env.agents] == [False, True]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.txt", "line 1: the file none.txt cannot be read: No such file"),
        ("../outside.txt", "line 1: file must name a file in or below"),
        ("/etc/hostname", "line 1: file must name a file in or below"),
        ("", "line 1: file must name a file in or below"),
        (3, "line 1: file must name a file in or below"),
        ("bytes.bin", "line 1: the file bytes.bin cannot be read: it is not UTF-8 text"),
        ("long.txt", "line 1: the file long.txt has 100,001 characters, and may have 100,000"),
    ],
)
def test_a_private_file_that_cannot_be_is_told_with_its_place(
    tmp_path: Path, name: Any, words: str
) -> None:
    (tmp_path / "outside.txt").write_text("secret", encoding="utf-8")
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "bytes.bin").write_bytes(b"\xff\xfe\xfa")
    (folder / "long.txt").write_text("x" * 100_001, encoding="utf-8")
    row = {"prompt": "x", "answer": "1", "private": [{"file": name}]}
    (folder / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ValueError, match=words) as error:
        load_task(folder / "train.jsonl")
    assert "\n" not in str(error.value)


def test_a_reference_in_a_private_text_is_refused_unless_its_agent_may_read_it() -> None:
    reference = "def total(xs):\n    return sum(xs)"
    for seat, protocol, refused in (
        (0, "debate", True),
        (0, "dialogue", True),
        (1, "dialogue", False),
    ):
        private = ["", ""]
        private[seat] = f"See:  {reference}"
        question = Question("q", "Add up.", "7", private=tuple(private), hidden=reference)
        batch = BatchedDebate(DebateConfig(task=[question], num_agents=2, protocol=protocol), 1)
        if not refused:
            batch.reset()
            continue
        with pytest.raises(ValueError, match=f"stands in the private text of agent_{seat}, which"):
            batch.reset()


def test_a_reference_in_a_persona_is_refused() -> None:
    question = Question("q", "Add up.", "7", hidden="def total(xs): return sum(xs)")
    personas = ("", "You know def total(xs):\n  return sum(xs)")
    for protocol, refused in (("debate", True), ("dialogue", False)):
        options: dict[str, Any] = {"protocol": protocol, "personas": personas}
        batch = BatchedDebate(DebateConfig(task=[question], num_agents=2, **options), 1)
        if not refused:
            batch.reset()
            continue
        with pytest.raises(ValueError, match="stands in the persona of agent_1, which may not"):
            batch.reset()


def test_a_reference_is_found_in_a_prompt_that_lays_it_out_otherwise() -> None:
    with pytest.raises(ValueError, match="stands in its prompt"):
        Question(
            "q",
            "Add: def total(xs): return sum(xs)",
            "7",
            hidden="def total(xs):\n  return sum(xs)",
        )


def test_lone_surrogates_of_a_reference_are_replaced() -> None:
    debate = DebateConfig(task=[told(2)], protocol="dialogue", num_agents=2).load().debate()
    debate.reset(Question("q", "?", "1", hidden="a\ud800b"))
    debate.post("agent_0", "Which?")
    assert "a\ufffdb" in debate.observation("agent_1")
