"""Whoever turns a prompt into a text takes part: a person, a script, a model, LangChain's idiom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0
from maporl_env.bridges.speakers import Person, play
from maporl_env.types import Question

QUESTION = Question("q", "what is 3 + 4?", "7")


def person(lines: Sequence[str]) -> tuple[Person, list[str]]:
    """Return somebody who types these lines and then leaves, and what they were shown."""
    typed: Iterator[str] = iter(lines)
    shown: list[str] = []

    def read(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    return Person(read, shown.append), shown


def test_a_person_a_script_and_a_model_debate() -> None:
    somebody, shown = person([r"I say \boxed{6}."])
    prompts_of_model: list[str] = []

    def model(prompts: Sequence[str]) -> list[str]:
        """Take the answer that was read last, like a model that follows."""
        prompts_of_model.extend(prompts)
        return [r"\boxed{7}" if r"\boxed{7}" in prompt else "hm" for prompt in prompts]

    script = [r"\boxed{7}", r"still \boxed{7}"]
    batch = play([somebody, script, model], [QUESTION], num_turns=2, gamma=1.0)

    said = [message.text for message in batch.transcripts[0].messages]
    assert said == [r"I say \boxed{6}.", r"\boxed{7}", "hm", "", r"still \boxed{7}", r"\boxed{7}"]
    assert "what is 3 + 4?" in shown[0]
    assert r"I say \boxed{6}." in prompts_of_model[1]
    # Scores are (0, 1, 0), then (0, 1, 1). R[0,i] = (own + mean of the later turn) / 2, R[1] = own.
    later = 2 / 3
    expected = np.array([[later / 2, (1 + later) / 2, later / 2], [0, 1, 1]])
    assert batch.turn_rewards()[0] == pytest.approx(expected)


def test_a_speaker_with_several_seats_is_asked_once_a_turn() -> None:
    asked = []

    def model(prompts: Sequence[str]) -> list[str]:
        asked.append(len(prompts))
        return [r"\boxed{7}"] * len(prompts)

    play([model, model, ["no"]], [QUESTION] * 4, num_turns=3)
    assert asked == [8, 8, 8]


def test_questions_are_drawn_by_seed() -> None:
    quiet = [["", ""], ["", ""]]
    first = play(quiet, debates=3, seed=1)
    again = play(quiet, debates=3, seed=1)
    other = play(quiet, debates=3, seed=2)
    ids = [[t.question.id for t in batch.transcripts] for batch in (first, again, other)]
    assert len(ids[0]) == 3
    assert ids[0] == ids[1] != ids[2]


def test_what_a_person_reads_cannot_move_their_cursor() -> None:
    somebody, shown = person(["a", "b"])
    play([somebody, ["\x1b[2Jgone\x07"]], [QUESTION], num_turns=2)
    assert "\x1b" not in "".join(shown)
    assert "gone" in shown[1]


@pytest.mark.parametrize("speakers", [[], "abc", print])
def test_speakers_are_a_list(speakers: Any) -> None:
    with pytest.raises(ValueError, match="list with one speaker per agent"):
        play(speakers, [QUESTION])


def test_a_seat_without_a_speaker_is_named() -> None:
    with pytest.raises(ValueError, match="partner agent_1"):
        play([["x"], "y"], [QUESTION])


def test_the_loop_that_langchain_shows_for_pettingzoo() -> None:
    """Agents that read the rule sheet, observe and act, driven over `agent_iter` and `last`."""

    class Agent:
        def __init__(self, rules: str) -> None:
            self.memory = [rules]
            self.earned = 0.0

        def observe(self, observation: str, reward: float) -> None:
            self.memory.append(str(observation))
            self.earned += reward

        def act(self) -> str:
            return r"\boxed{7}" if "3 + 4" in self.memory[-1] else "?"

    env = debate_v0.env(task=[QUESTION], num_agents=2, num_turns=2, gamma=1.0)
    env.reset(seed=0)
    agents = {name: Agent(debate_v0.__doc__ or "") for name in env.possible_agents}
    for name in env.agent_iter():
        observation, reward, termination, truncation, _ = env.last()
        agents[name].observe(observation, reward)
        env.step(None if termination or truncation else agents[name].act())
    assert all("Rules" in agent.memory[0] for agent in agents.values())
    # Everybody is right in both turns: R = 1 for each of two messages.
    assert [agent.earned for agent in agents.values()] == pytest.approx([2, 2])
