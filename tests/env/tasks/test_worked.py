"""Worked examples: whose they are, what they show, and where they stand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from maporl_env import prompts
from maporl_env.answers import extract_answer
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.prompts import Template
from maporl_env.tasks import load_task
from maporl_env.tasks.base import Task
from maporl_env.tasks.worked import marked
from maporl_env.types import Question

TASKS = {
    "shopping": {"num_agents": 2},
    "sharing": {"num_agents": 2},
    "coins": {"num_agents": 3},
    "receipts": {"num_agents": 2, "protocol": "joint"},
    "notes": {"num_agents": 2},
    "notes:agents=3": {"num_agents": 3},
    "notes_misled": {"num_agents": 3},
}


def numbers(count: int, **more) -> list[Question]:
    return [Question(f"q{n}", f"{n} + {n} ?", str(2 * n), **more) for n in range(count)]


def task_of(train: int = 6, **more) -> Task:
    everything = numbers(train + 2)
    return Task("sums", {"train": everything[:train], "test": everything[train:]}, **more)


def begun(config: DebateConfig, question: Question) -> list[str]:
    debates = BatchedDebate(config, 1)
    debates.reset([question])
    return [prompt.text for prompt in debates.prompts()]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("rule", ["box", "answer_line"])
def test_examples_of_every_task_are_right_training_questions(name, rule):
    task = load_task(name)
    game = DebateConfig(task, shots=3, answer_rule=rule, **TASKS[name]).load()
    examples = game.examples
    assert examples is not None
    assert len(examples.questions) == 4
    training = {question.id for question in task.split("train")}
    for place, question in enumerate(examples.questions):
        assert question.id in training
        for seat, texts in enumerate(examples.texts):
            text = texts[place]
            told = question.private_of(seat)
            others = set(question.private) - {told}
            assert question.prompt in text
            assert told in text
            if others:  # what others were told is heard from them, not told
                assert not any(f"told: {other}\n" in text for other in others)
            last = text.rpartition("you : ")[2]
            assert str(extract_answer(last, question.kind)) == question.answer


def test_each_agent_reads_the_examples_once_before_all_else():
    config = DebateConfig(task_of(), num_agents=2, num_turns=2, shots=2)
    debates = BatchedDebate(config, 1)
    debates.reset([config.load().questions[0]])
    first = debates.prompts()
    debates.step(["one", "two"])
    for before, prompt in zip(first, debates.prompts(), strict=True):
        assert before.text.startswith("Example 1, with good answers:\nQuestion: ")
        assert before.text.count("Example ") == prompt.text.count("Example ") == 2
        assert before.text.count(r"\boxed{") == 2 + 3  # two answers, three instructions
        assert prompt.text.startswith(before.text)
        assert prompt.view[0] == before.view[0]
        assert prompts.render(prompt.view) == prompt.text


def test_the_asked_question_is_never_among_its_examples():
    task = task_of(train=3)
    for question in task.split("train"):
        [text] = begun(DebateConfig(task, num_agents=1, shots=2), question)
        assert text.count(question.prompt) == 1
    same_words = replace(task.split("train")[0], id="other")
    [text] = begun(DebateConfig(task, num_agents=1, shots=2), same_words)
    assert text.count(same_words.prompt) == 1


def test_examples_stand_in_no_split_that_is_measured():
    leaked = numbers(6)
    task = Task("sums", {"train": leaked, "test": leaked[:2], "validation": leaked[2:4]})
    game = DebateConfig(task, num_agents=1, shots=1).load()
    assert {question.id for question in game.examples.questions} == {"q4", "q5"}
    with pytest.raises(ValueError, match="task 'sums' has 2: lower shots"):
        DebateConfig(task, num_agents=1, shots=3).load()
    with pytest.raises(ValueError, match="task 'questions' has 0: lower shots"):
        DebateConfig(leaked, num_agents=1, shots=1).load()  # its own test set


def test_examples_are_the_same_in_every_process_and_game():
    texts = [
        DebateConfig("shopping", num_agents=2, shots=2).load().examples.texts for _ in range(2)
    ]
    assert texts[0] == texts[1]
    assert "Mia buys 1 sofa and 3 cap . how much ? in" in texts[0][0][0]


@pytest.mark.parametrize("protocol", ["debate", "sequential", "pipeline", "self_correction"])
def test_protocols_word_their_examples(protocol):
    agents = 3 if protocol == "pipeline" else 1 if protocol == "self_correction" else 2
    config = DebateConfig(task_of(), num_agents=agents, num_turns=2, shots=1, protocol=protocol)
    debates = BatchedDebate(config, 1)
    debates.reset([config.load().questions[-1]])
    while asked := debates.prompts():
        for prompt in asked:
            roles = [who for who, _ in prompt.view]
            text = next(text for who, text in prompt.view if who == "user")
            assert text.startswith("Example 1, with good answers:\nQuestion: ")
            assert roles.count("system") == (protocol == "pipeline")
        debates.step(["hm"] * len(asked))


@pytest.mark.parametrize("history", ["all", "last", "none"])
def test_examples_stay_whatever_turns_are_dropped(history):
    config = DebateConfig(task_of(), num_agents=2, num_turns=3, shots=1, history=history)
    debates = BatchedDebate(config, 1)
    debates.reset([config.load().questions[-1]])
    for _ in range(3):
        assert all(prompt.text.count("Example 1,") == 1 for prompt in debates.prompts())
        debates.step(["x"] * 2)


@pytest.mark.parametrize("budget", [120, 200])
def test_a_token_budget_holds_with_its_examples(budget):
    config = DebateConfig(task_of(), num_agents=2, num_turns=4, shots=1, token_budget=budget)
    debates = BatchedDebate(config, 1)
    debates.reset([config.load().questions[-1]])
    for _ in range(4):
        for prompt in debates.prompts():
            assert "Example 1," in prompt.text
            assert prompts.count_characters(prompt.text) <= budget
        debates.step(["word " * 50] * 2)


def test_examples_that_fill_the_token_budget_are_refused():
    with pytest.raises(ValueError, match="2 worked examples take"):
        DebateConfig(task_of(), num_agents=2, shots=2, token_budget=50).load()


def test_token_observations_hold_their_examples():
    config = DebateConfig("notes", num_agents=2, shots=1, observation="tokens")
    [text, _] = begun(config, config.load().questions[0])
    assert "Example 1," in text


def test_programs_and_verdicts_have_no_worked_answer():
    programs = Task("code", {"train": numbers(3, kind="code")})
    with pytest.raises(ValueError, match="is answered by a program"):
        DebateConfig(programs, num_agents=1, shots=1).load()
    with pytest.raises(ValueError, match="no key tells what is right: set shots=0"):
        DebateConfig(replace(task_of(), make_verifier=object), num_agents=1, shots=1).load()


def test_private_examples_for_another_number_of_agents_are_refused():
    told = [Question(f"q{n}", f"{n} ?", "1", private=("a", "b", "c")) for n in range(4)]
    task = Task("told", {"train": told, "test": numbers(2)})
    config = DebateConfig(task, num_agents=2, shots=1, split="test")
    with pytest.raises(ValueError, match="private texts for 3 agents, not for 2: set num_agents=3"):
        config.load()


@pytest.mark.parametrize("shots", [-1, True, 1.5, "2"])
def test_a_wrong_number_of_shots_is_refused(shots):
    with pytest.raises(ValueError, match="shots must be an integer >= 0"):
        DebateConfig(shots=shots)


def test_labels_and_texts_are_marked_in_boxes():
    for kind, answer in (
        ("nli", "neutral"),
        ("text", "red"),
        ("number", "1/2"),
        ("last_line", "4"),
    ):
        assert str(extract_answer(marked(answer, kind), kind)) == answer


def test_gsm8k_shows_the_published_solutions(tmp_path):
    rows = [
        {"question": f"{n} and 1?", "answer": f"So {n}+1 = <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
        for n in range(4)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    test = {"question": "What is 5 and 5?", "answer": "#### 10"}
    (tmp_path / "test.jsonl").write_text(json.dumps(test))
    task = load_task("gsm8k", tmp_path)
    [text] = begun(DebateConfig(task, num_agents=1, shots=2), task.split("test")[0])
    assert text.count("So ") == 2
    assert "<<" not in text
    assert "####" not in text


def test_an_example_has_words_of_its_own():
    words = Template(example="Look at {number}: {text} / ")
    [text] = begun(DebateConfig(task_of(), num_agents=1, shots=1, template=words), numbers(9)[-1])
    assert text.startswith("Look at 1: Question: ")
