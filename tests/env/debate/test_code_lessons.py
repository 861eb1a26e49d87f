"""Protocol of LessonL for programs: tests first, attempts in order, lessons for failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from refusals import refused

from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.sandbox import unavailable
from maporl_env.types import Question, Transcript
from maporl_env.verifiers.programs import Suite
from maporl_env.verifiers.self_tests import CodeLessons, SelfTests, assertions

SUITE = Suite("double", "", "assert double(4) == 8\nassert double(0) == 0\n")
QUESTION = Question("double", "Write double(x).", str(SUITE), kind="code")
TESTS = "```python\nassert double(1) == 2\nassert double(2) == 4\n```"
SHARES = {"none": 0.0, "half": 0.5, "more": 0.75, "all": 1.0}


def by_word(question: Question, tests: str, attempt: str) -> float | None:
    assert tests == TESTS
    return SHARES[attempt.split("#")[1].strip("`\n ")]


def program(word: str) -> str:
    return f"```python\ndef double(x): return x  # {word}\n```"


def played(
    words: list[str], num_agents: int = 3, **options: Any
) -> tuple[Transcript, Mapping[int, str], BatchedDebate]:
    """Play with attempts of given worth; return transcript and what was read in each turn."""
    protocol = CodeLessons(**{"num_turns": 2 * len(words), "grade": by_word, **options})
    batch = BatchedDebate(
        DebateConfig(
            [QUESTION],
            protocol=protocol,
            num_agents=num_agents,
            verifier=lambda questions, texts: [0.25] * len(texts),
        ),
        1,
    )
    batch.reset()
    read: dict[int, str] = {}

    def say(prompt: Prompt) -> str:
        read[prompt.turn] = prompt.text
        if prompt.turn == 0:
            return TESTS
        return program(words[prompt.turn // 2]) if prompt.turn % 2 else f"lesson {prompt.turn}"

    while prompts := batch.prompts():
        batch.step([say(prompt) for prompt in prompts])
    return batch.transcripts[0], read, batch


def test_agents_act_from_large_to_small_and_the_first_to_pass_ends_it() -> None:
    transcript, _, batch = played(["none", "half", "all", "none"])
    order = [(m.turn, m.agent[-1]) for m in transcript.messages]
    assert order == [(0, "0"), (1, "0"), (2, "0"), (3, "1"), (4, "1"), (5, "2")]
    assert "# all" in str(batch.debates[0].outcome()[0])


def test_agents_begin_again_when_all_have_tried() -> None:
    transcript, _, _ = played(["none"] * 4, num_agents=2)
    assert [m.agent[-1] for m in transcript.messages if m.turn % 2] == ["0", "1", "0", "1"]
    assert transcript.turn == 8  # no lesson after the last attempt


def test_who_reads_what() -> None:
    _, read, _ = played(["half", "none", "none"])
    assert "Write about 6 tests" in read[0]
    assert "lesson" not in read[1].lower()
    assert "# half" in read[2]
    assert "50% of the tests hold" in read[2]
    assert "lesson 2" in read[3]
    assert "passed 50% of the tests" in read[3]
    assert "# half" not in read[3]  # nobody's earlier attempt
    assert "lesson 2" in read[5]
    assert "lesson 4" in read[5]


def test_lessons_are_ranked_by_share_and_factor_without_a_cut() -> None:
    transcript, read, _ = played(["half", "none", "more", "none"], shown=1)
    lessons, places = CodeLessons(num_turns=8, grade=by_word, shown=1).bank(transcript.until(7))
    assert [one.speedup for one in lessons] == [0.5, 0.0, 0.75]
    # Lesson 2 was shown in turns 3 (worse) and 5 (better): set, not multiplied.
    assert [one.factor for one in lessons] == pytest.approx([1.1, 1.0, 1.0])
    assert places == (2,)
    assert "lesson 6" in read[7]
    assert "lesson 2" not in read[7]


def test_attempts_alone_are_scored_and_paid() -> None:
    transcript, _, _ = played(["half", "none"])
    assert [m.score for m in transcript.messages] == [None, 0.25, None, 0.25]
    assert [m.paid for m in transcript.messages] == [False, True, False, True]
    paid, _, _ = played(["half", "none"], pay_lessons=True)
    assert [m.paid for m in paid.messages] == [False, True, True, True]


def test_lessons_paid_by_their_factor() -> None:
    _, _, batch = played(["half", "none", "more"], pay_lessons="factor", num_agents=1)
    rewards = batch.turn_rewards()[0][:, 0]
    assert rewards[[2, 4]] == pytest.approx([0.1, 0.1])  # both were shown, and 75 % passed
    _, _, batch = played(["half", "none"], pay_lessons="factor", num_agents=1)
    assert batch.turn_rewards()[0][2, 0] == pytest.approx(-0.1)


def test_the_answer_is_the_first_attempt_with_the_largest_share() -> None:
    _, _, batch = played(["half", "none", "half"])
    assert "# half" in str(batch.debates[0].outcome()[0])
    protocol = CodeLessons(grade=by_word)
    assert protocol.outcome(Transcript(QUESTION, ("agent_0",), (), ())) == ()


@refused(
    ({"num_turns": 5}, "num_turns must be even, not 5"),
    ({"cut": 1.1}, "cut and scale are for speed-ups"),
    ({"count": -1}, "count must be an integer >= 0"),
)
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    CodeLessons(**options)


# --- tests of one's own ---


def test_only_whole_assertions_are_taken() -> None:
    text = (
        "```python\nimport os\nassert double(1) == 2\nassert double(\nassert True\n"
        "  assert double(2) == 4\nassert double(1) == 2\nos.remove('x')\n```"
    )
    assert assertions(text) == ("assert double(1) == 2", "assert double(2) == 4")
    assert assertions("no tests") == ()


@pytest.mark.skipif(unavailable() is not None, reason=f"no namespaces: {unavailable()}")
def test_the_share_of_tests_that_a_program_passes() -> None:
    grade = SelfTests()
    right, half = (f"```python\ndef double(x): return {body}\n```" for body in ("2 * x", "2"))
    assert grade(QUESTION, TESTS, right) == 1.0
    assert grade(QUESTION, TESTS, half) == 0.5
    assert grade(QUESTION, TESTS, "nothing") == 0.0
    assert grade(QUESTION, "no tests", right) is None
    assert grade(QUESTION, "```python\nassert double.__doc__.x\n```", right) == 0.0


@pytest.mark.skipif(unavailable() is not None, reason=f"no namespaces: {unavailable()}")
def test_the_protocol_is_had_by_its_name_and_plays_with_real_tests() -> None:
    name = "maporl_env.verifiers.self_tests:CodeLessons"
    config = DebateConfig([QUESTION], protocol=name, num_agents=2, num_turns=6)
    batch = BatchedDebate(config, 1)
    batch.reset()
    said = iter([TESTS, "```python\ndef double(x): return 2\n```", "use x", "2 * x", "not run"])
    while prompts := batch.prompts():
        batch.step([next(said) for _ in prompts])
        if batch.transcripts[0].turn == 3:
            break
    lessons, _ = config.load().protocol.bank(batch.transcripts[0])
    assert [(one.text, one.speedup) for one in lessons] == [("use x", 0.5)]
