"""From prompts to completions: who writes, what they read, and which engine is asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from miniatures import load_team, stir

from maporl_agents.bridges.bench_players import TeamSpeaker
from maporl_agents.bridges.speaker import LocalSpeaker
from maporl_agents.commands.play import say
from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play import speak as module
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import Request, requests, speak
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Completion, StopReason, TokenIds
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.types import Question, View

QUESTIONS = [Question("q/0", "how much is two and three ?", "5"), Question("q/1", "how ?", "7")]
SAMPLING = Sampling(max_new_tokens=4, agent_max_new_tokens=(2, 4))


@pytest.fixture(scope="module")
def team(checkpoint) -> Team:
    made = load_team(checkpoint("llama"), num_turns=2, sharing="turn")
    stir(made)
    return made


def debates(**options: object) -> BatchedDebate:
    config = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=2, **options)  # type: ignore[arg-type]
    return BatchedDebate(config, 2)


def opening() -> list[Prompt]:
    game = debates()
    game.reset(QUESTIONS)
    return game.prompts()


def test_a_request_names_the_policy_of_agent_and_turn(team: Team) -> None:
    first = opening()
    later = [prompt._replace(turn=1) for prompt in first]
    asked = requests(team, [*first, *later], [()] * 8)
    assert [one.policy for one in asked] == [
        team.policy(agent, turn) for turn in (0, 1) for _ in QUESTIONS for agent in (0, 1)
    ]
    assert [one.agent for one in asked] == [0, 1] * 4


def test_a_repeated_prompt_is_encoded_once(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own messages are part of the prompt, so the same text after other ids is another prompt."""
    read: list[tuple[object, ...]] = []
    [chat] = {id(base.chat): base.chat for base in team.bases}.values()
    original = chat.prompt_ids

    def counted(view: View, own: Sequence[TokenIds] = ()) -> TokenIds:
        read.append((view, own))
        return original(view, own)

    monkeypatch.setattr(chat, "prompt_ids", counted)
    prompt = opening()[0]
    said = prompt._replace(view=(*prompt.view, ("own", "yes"), ("user", "and now ?")))
    asked = requests(team, [prompt, prompt, said, said, said], [(), (), [(5,)], [(6,)], [(5,)]])
    assert len(read) == 3
    assert asked[0].prompt == asked[1].prompt
    assert asked[2].prompt == asked[4].prompt != asked[3].prompt


@pytest.mark.parametrize("silent", [False, True])
def test_prompts_of_agents_are_shared_only_if_both_were_told_the_same(
    team: Team, silent: bool
) -> None:
    """One question and two private texts make two prompts; each holds its reader's text alone."""
    private = ("", "") if silent else ("Ann has 2 .", "Ben has 3 .")
    question = Question("q", "how much ?", "5", private=private, hidden="2 and 3")
    game = BatchedDebate(DebateConfig(task=[question], num_agents=2), 2)
    game.reset([question, question])
    asked = requests(team, game.prompts(), [()] * 4)
    first, second, *again = (one.prompt for one in asked)
    assert again == [first, second]  # the same texts in the other debate
    assert (first == second) == silent
    for request in asked if not silent else []:
        text = team.base_of(request.policy).chat.tokenizer.decode(request.prompt)
        own, other = private[request.agent], private[1 - request.agent]
        assert f"how much ?\nYou alone were told: {own}" in text
        assert other not in text
        assert question.hidden not in text


@pytest.mark.parametrize("protocol", ["debate", "sequential", "joint"])
def test_prompts_of_later_turns_hold_the_readers_text_alone_and_only_grow(
    team: Team, protocol: str
) -> None:
    private = ("Ann has 2 .", "Ben has 3 .")
    question = Question("q", "how much ?", "5", private=private, hidden="2 and 3")
    options: dict[str, object] = {"num_agents": 2, "num_turns": 2, "protocol": protocol}
    game = BatchedDebate(DebateConfig(task=[question], **options), 2)  # type: ignore[arg-type]
    for one in play(team, game, [question, question], SAMPLING, seed=0):
        for place, prompt in enumerate(one.prompts):
            text = team.base_of(one.policies[place]).chat.tokenizer.decode(prompt)
            assert f"how much ?\nYou alone were told: {private[place % 2]}" in text
            assert private[1 - place % 2] not in text
            assert question.hidden not in text
        for first, second, said in zip(
            one.prompts[:2], one.prompts[2:], one.completions[:2], strict=True
        ):
            assert second[: len(first) + len(said.ids)] == (*first, *said.ids)


def test_limits_are_those_of_the_agent_who_is_asked(team: Team) -> None:
    [prompt] = {one.prompt for one in requests(team, opening()[:1], [()])}
    asked = [Request(team.policy(agent, 0), prompt, agent, i) for i, agent in enumerate((1, 0, 1))]
    for base in team.bases:
        assert not base.chat.stop_ids & set(prompt)
    said = speak(team, asked, SAMPLING, 3)
    assert len(said[1].ids) <= 2
    assert max(len(said[0].ids), len(said[2].ids)) > 2


def test_every_caller_asks_the_one_engine(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, trees, benchmark players, local speakers and `maporl play` need no other change."""
    asked: list[list[int]] = []

    def engine(team, requests, sampling, seed, kept=None) -> list[Completion]:
        asked.append([one.agent for one in requests])
        return [Completion((1,), (-1.0,), f"{seed % 7}", StopReason.EOS) for _ in requests]

    monkeypatch.setattr(module, "complete", engine)
    play(team, debates(), QUESTIONS, SAMPLING, seed=0)
    assert [len(call) for call in asked] == [4, 4]
    calls = len(asked)
    TeamSpeaker(team, SAMPLING, 0)(opening())
    LocalSpeaker(team, SAMPLING, seat=1, seed=0)(["how much ?"])
    say(team, opening()[1], [], SAMPLING, 0, kept=None, tools=None)
    grow_trees(team, debates(protocol="sequential"), QUESTIONS, SAMPLING, (1, 1, 1, 1), seed=0)
    assert asked[calls:] == [[0, 1, 0, 1], [1], [1], [0, 0], [1, 1], [0, 0], [1, 1]]
