"""The answer rule `answer_line`: what is read, what is refused, hostile text, and who obeys it."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.answers import extract_answer, parse_answer
from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.reading.answer_lines import answer_line
from maporl_env.tasks.worked import instructing, marked, read_by
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey, MathVerifier, NoisyKey, NumericTolerance

READ = {
    "Answer: 7": 7,
    "So.\nAnswer: 3 + 4 = 7 apples.": 7,
    "**Answer:** 42": 42,
    "  **Answer: 42**": 42,
    "Answer: $1,234.50": Fraction("1234.5"),
    "Answer: -5": -5,
    "Answer: - 5": -5,
    "Answer: x = - 5": -5,
    "Answer: 1/2 of the cake": Fraction(1, 2),
    r"Answer: $\frac{1}{2}$": Fraction(1, 2),
    r"Answer: \boxed{7}": 7,
    "Answer: 50%": 50,
    "Answer: 50 %": 50,
    "Answer: $ 34": 34,
    "Answer: 1.5e3": 1500,
    "Answer: 3+4=7": 7,
    "Answer: 7 .": 7,
    "Answer: $9.00 (nine dollars)": 9,
    "Answer: 12 dollars for 3 apples": 3,
    "Answer: six\nAnswer: 6": 6,
    "Answer: 5\n\nThat is all 9 of us.": 5,
    "Answer: 5\rAnswer: 6": 6,
}
NOT_READ = (
    *("no line", "answer: 7", "The Answer: 7", "Answer:\n7", "Answer: seven", "Answer 7", ""),
    *("Answer: 7\nAnswer: x", "Answer: 5 - 3", "Answer: 5-3", "Answer: 3 +", "Answer: 3 x 4"),
    *("Answer: 1 1/2", "Answer: 3, 4", "Answer: 1 000", "Answer: 2 million", "Answer: 7k"),
    *(
        "Answer: 2 and a half",
        "Answer: minus 2",
        "Answer: 7 (not 8)",
        "Answer: 7th",
        "Answer: 7:30",
    ),
    *("Answer: ½", "Answer: ٣", "Answer: 2^3", "Answer: 1/0", "Answer: 7 =", r"Answer: 1\ 234"),
    *(r"\boxed{7}", "Answer: " + "7 " * 600),
)


@pytest.mark.parametrize(("text", "answer"), READ.items())
def test_the_last_number_of_the_answer_line_is_read(text, answer):
    assert extract_answer(text, "answer_line") == answer


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_not_plainly_one_number_is_no_answer(text):
    assert extract_answer(text, "answer_line") is None


@pytest.mark.thorough
@given(value=st.integers() | st.fractions(), before=st.text(), after=st.text())
def test_a_marked_number_is_read_back_whatever_stands_around_it(value, before, after):
    message = f"{before}\n{marked(str(value), 'answer_line')}\n{after.replace('Answer', '')}"
    assert extract_answer(message, "answer_line") == value


@given(st.text(alphabet="Answer: \n*_0123456789+-=/.,$%\\{}x½٣"))
def test_no_text_raises_and_what_is_read_stands_in_the_line(text):
    found = answer_line(text)
    assert found is None or found.lstrip("+-\u2212") in text


@pytest.mark.parametrize(
    "text",
    [
        "Answer: 7\n" * 100_000,
        "xAnswer: 7\n" * 90_000,
        "Answer:" * 140_000,
        " " * 10**6 + "Answer: 7",
        "Answer: " + "7 " * 500_000,
        "\n" * 500_000 + "Answer: 7" + "\n" * 499_000,
        (" " * 999 + "\n") * 1_000 + "Answer: 7",
        ("Answer: " + "1 " * 495 + "\n") * 1_000,
        "Answer: " + "*" * 990,
    ],
    ids=range(9),
)
def test_a_megabyte_is_read_in_a_quarter_of_a_second(text):
    spent = []
    for _ in range(5):
        start = time.process_time()
        extract_answer(text, "answer_line")
        spent.append(time.process_time() - start)
    assert min(spent) < 0.25


def played(**options) -> BatchedDebate:
    questions = [Question("q", "3 + 4 ?", "7"), Question("n", "really ?", "neutral", "nli")]
    config = DebateConfig(
        questions, num_agents=3, num_turns=1, answer_rule="answer_line", **options
    )
    debates = BatchedDebate(config, 2)
    debates.reset(questions)
    debates.step(
        [r"\boxed{7}", "Answer: 7", "It is 7\nAnswer: 3 + 4 = 7", *[r"\boxed{neutral}"] * 3]
    )
    return debates


@pytest.mark.parametrize(
    "verifier", [None, AnswerKey(), NoisyKey(1.0, unsure=0), NumericTolerance()]
)
def test_verifiers_rewards_votes_and_penalties_go_by_the_rule(verifier):
    from maporl_env.penalties import Penalties

    debates = played(verifier=verifier, penalties=Penalties(no_answer=0.5), gamma=0.0)
    numbers, labels = debates.transcripts
    assert [message.score for message in numbers.messages] == [0, 1, 1]
    assert debates.debates[0].outcome() == (7,)
    if not isinstance(verifier, NumericTolerance):
        assert [message.score for message in labels.messages] == [1, 1, 1]
        assert debates.debates[1].outcome() == ("neutral",)
    assert debates.turn_rewards()[0, 0, 0] == pytest.approx(debates.turn_rewards()[0, 0, 1] - 1.5)


@pytest.mark.thorough  # starts a process
def test_answers_in_latex_are_found_by_the_rule():
    pytest.importorskip("math_verify")
    question = read_by(Question("q", "3 + 4 ?", "7"), "answer_line")
    assert MathVerifier().score([question] * 2, ["Answer: 7", r"\boxed{7}"]) == [1.0, 0.0]


def test_a_pinned_question_is_read_by_the_rule_too():
    from maporl_env import debate_v0

    env = debate_v0.parallel_env("shopping", num_agents=1, num_turns=1, answer_rule="answer_line")
    env.reset(options={"question": Question("own", "3 + 4 ?", "7")})
    _, rewards, *_ = env.step({"agent_0": "Answer: 7"})
    assert rewards == {"agent_0": 1.0}


def test_instructions_ask_for_what_is_read():
    game = DebateConfig("notes", num_agents=2, answer_rule="answer_line").load()
    assert "boxed" not in game.protocol.template.instruction
    assert "'Answer:'" in game.protocol.template.instruction
    assert "write what you know" in game.protocol.template.instruction
    assert instructing(game.task.template, "box") is game.task.template


def test_a_rule_that_reads_nothing_is_refused():
    labels = [Question("n", "really ?", "neutral", "nli")]
    with pytest.raises(ValueError, match="answer_rule='answer_line' reads numbers"):
        DebateConfig(labels, answer_rule="answer_line").load()
    with pytest.raises(ValueError, match="unknown answer_rule 'line'"):
        DebateConfig(answer_rule="line")  # type: ignore[arg-type]
    from maporl_env.prompts import Template

    with pytest.raises(ValueError, match="template asks for a"):
        DebateConfig(template=Template(), answer_rule="answer_line").load()
    assert parse_answer("7 apples", "answer_line") is None  # a key is a number alone
