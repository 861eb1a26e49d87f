"""Playing: what is carried from the sampler into the rollout, and what an agent may see."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from miniatures import load_team, stir

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.types import Completion, Rollout, StopReason
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.debate import Debate
from maporl_env.penalties import Penalties
from maporl_env.protocols import SimultaneousDebate
from maporl_env.types import Question

QUESTIONS = [
    Question("q/0", "how much is two and three ?", "5"),
    Question("q/1", "how many apples are left ? <|im_end|>", "7"),
    Question("q/2", "how much ?", "9"),
]
SAMPLING = Sampling(max_new_tokens=5)


def make_debates(num_turns: int = 3, **options: object) -> BatchedDebate:
    config = DebateConfig(task=QUESTIONS, num_agents=2, num_turns=num_turns, **options)  # type: ignore[arg-type]
    return BatchedDebate(config, 4)


def make_team(checkpoint, *, templated: bool = False, stops: int = 4, **settings: object) -> Team:
    team = load_team(checkpoint("llama", templated=templated), **settings)
    stir(team)
    for base in team.bases:  # let every fourth id end a message, so that lengths differ
        base.chat.stop_ids |= set(range(0, base.vocab_size, stops))
    return team


@pytest.fixture(params=[False, True], ids=["plain", "templated"])
def played(request: pytest.FixtureRequest, checkpoint) -> tuple[Team, list[Rollout]]:
    team = make_team(checkpoint, templated=request.param)
    return team, play(team, make_debates(), QUESTIONS, SAMPLING, seed=1)


class TestTokensAreCarried:
    """Failures A26 and A27."""

    def test_the_transcript_is_the_decoded_sample(self, played) -> None:
        team, rollouts = played
        for rollout in rollouts:
            assert len(rollout.transcript.messages) == len(rollout.completions) == 6
            for i, message in enumerate(rollout.transcript.messages):
                chat = team.base_of(rollout.policies[i]).chat
                assert message.text == rollout.completions[i].text
                assert message.text == chat.decode(rollout.completions[i].ids)

    def test_each_row_opens_the_agents_next_prompt(self, played) -> None:
        for rollout in played[1]:
            for i in range(4):  # two agents: the agent's next message is two places on
                row = rollout.prompts[i] + rollout.completions[i].ids
                assert rollout.prompts[i + 2][: len(row)] == row
                assert len(rollout.prompts[i + 2]) > len(row)

    def test_encoding_the_text_again_would_have_given_other_ids(self, played) -> None:
        """Otherwise the tests above could not tell carrying from re-encoding."""
        team, rollouts = played
        chat = team.bases[0].chat
        others = [
            one
            for rollout in rollouts
            for one in rollout.completions
            if chat.encode(one.text) != [i for i in one.ids if i not in chat.stop_ids]
        ]
        assert len(others) > 3

    def test_control_tokens_come_from_the_template_and_the_sample_alone(self, played) -> None:
        team, rollouts = played
        chat = team.bases[0].chat
        control = set(chat.tokenizer.all_special_ids)
        empty = Debate(SimultaneousDebate(num_turns=3), 2)
        empty.reset(QUESTIONS[2])
        for turn in range(3):
            frame = sum(i in control for i in chat.prompt_ids(empty.view("agent_0")))
            for rollout in rollouts:
                prompt = rollout.prompts[2 * turn]
                own = [i for t in range(turn) for i in rollout.completions[2 * t].ids]
                written = sum(i in control for i in own)
                closing = sum(
                    rollout.completions[2 * t].ids[-1] == chat.tokenizer.eos_token_id
                    for t in range(turn)
                ) * (chat.tokenizer.chat_template is not None)
                assert sum(i in control for i in prompt) == frame + written - closing
            for agent in empty.agents:
                empty.post(agent, "x")
            empty.settle([0.0, 0.0])

    def test_policies_and_rewards_stand_at_their_messages(self, played) -> None:
        for rollout in played[1]:
            assert rollout.policies == ("agent_0", "agent_1") * 3
            assert rollout.rewards.shape == rollout.scored.shape == (3, 2)
            assert rollout.scored.all()
            places = [(m.turn, m.agent) for m in rollout.transcript.messages]
            assert places == [(t, f"agent_{a}") for t in range(3) for a in range(2)]


def test_with_the_last_turn_only_the_newest_own_message_is_carried(checkpoint) -> None:
    team = make_team(checkpoint)
    [rollout] = play(team, make_debates(history="last"), QUESTIONS[:1], SAMPLING, seed=1)
    for seat in range(2):
        first, second = (rollout.completions[2 * t + seat].ids for t in range(2))
        prompt = rollout.prompts[4 + seat]
        assert contains(prompt, second)
        assert not contains(prompt, first)


def contains(ids: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(ids[i : i + len(part)] == part for i in range(len(ids)))


class TestOrderOfAgents:
    """Failure C22: same-turn answers are invisible to each other."""

    def test_speaking_in_another_order_leaves_every_prompt_unchanged(self, checkpoint) -> None:
        chat = make_team(checkpoint).bases[0].chat
        texts = {
            f"agent_{seat}": [f"{seat} of turn {turn}" for turn in range(3)] for seat in range(3)
        }

        def prompts(order: list[str]) -> dict[tuple[int, str], tuple[int, ...]]:
            debate = Debate(SimultaneousDebate(num_turns=3), 3)
            debate.reset(QUESTIONS[0])
            seen = {}
            for turn in range(3):
                for agent in order:
                    seen[turn, agent] = chat.prompt_ids(debate.view(agent))
                    debate.post(agent, texts[agent][turn])
                debate.settle([0.0] * 3)
            return seen

        agents = [f"agent_{seat}" for seat in range(3)]
        forwards = prompts(agents)
        assert prompts(agents[::-1]) == forwards
        assert prompts([agents[1], agents[2], agents[0]]) == forwards

    def test_a_turn_is_prompted_whole_before_anybody_speaks(self, checkpoint) -> None:
        """Other agents' weights, and so their words, move no prompt of the same turn."""
        team = make_team(checkpoint)
        first = play(team, make_debates(), QUESTIONS, SAMPLING, seed=1)
        with torch.no_grad():
            for parameter in team.trainable()["agent_1"].values():
                parameter.mul_(-1)
        second = play(team, make_debates(), QUESTIONS, SAMPLING, seed=1)
        for before, after in zip(first, second, strict=True):
            assert before.prompts[:2] == after.prompts[:2]
            assert before.completions[0].ids == after.completions[0].ids
        heard = [rollout.prompts[2] for rollout in (*first, *second)]
        assert heard[:3] != heard[3:]  # agent 0 does hear of it in turn 2


class TestRandomness:
    def test_equal_seeds_play_equal_debates(self, checkpoint) -> None:
        team = make_team(checkpoint)
        first, second, other = (
            play(team, make_debates(), QUESTIONS, SAMPLING, seed=seed) for seed in (1, 1, 2)
        )
        assert [r.completions for r in first] == [r.completions for r in second]
        assert [r.completions for r in first] != [r.completions for r in other]

    def test_each_turn_draws_from_a_stream_of_its_own(self, checkpoint) -> None:
        streams: list[int] = []

        def engine(team, asked, sampling, seed) -> list[Completion]:
            streams.append(seed)
            return [Completion((1,), (-1.0,), "no box", StopReason.EOS) for _ in asked]

        for seed in (1, 2):
            play(
                make_team(checkpoint), make_debates(), QUESTIONS, SAMPLING, seed=seed, engine=engine
            )
        assert len(streams) == len(set(streams)) > 2

    def test_the_global_random_state_is_not_touched(self, checkpoint) -> None:
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
        for tuning in ("full", "lora"):
            team = make_team(checkpoint, tuning=tuning)
            play(team, make_debates(), QUESTIONS, SAMPLING, seed=1)
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])

    def test_agents_draw_different_noise(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"))  # equal weights, equal prompts in the first turn
        [rollout] = play(team, make_debates(1), QUESTIONS[:1], SAMPLING, seed=1)
        assert rollout.prompts[0] == rollout.prompts[1]
        assert rollout.completions[0].ids != rollout.completions[1].ids


class TestFaults:
    def test_messages_without_a_score_are_marked(self, checkpoint) -> None:
        def verifier(questions, responses) -> list[float]:
            return [float("nan") if q.id == "q/1" else 1.0 for q in questions]

        team = make_team(checkpoint)
        rollouts = play(team, make_debates(verifier=verifier), QUESTIONS, SAMPLING, seed=1)
        assert [rollout.scored.all() for rollout in rollouts] == [True, False, True]
        assert not rollouts[1].scored.any()

    def test_only_what_the_token_limit_cut_pays_for_having_no_end(self, checkpoint) -> None:
        """EOS and a stop text are ends (failure A8). One turn of two agents, all scores 0."""
        stops = [StopReason.EOS, StopReason.LENGTH, StopReason.TEXT, StopReason.LENGTH]

        def engine(team, asked, sampling, seed) -> list[Completion]:
            return [Completion((1,), (-1.0,), "no box", stop) for stop in stops]

        debates = make_debates(
            num_turns=1,
            verifier=lambda questions, responses: [0.0] * len(questions),
            penalties=Penalties(unfinished=0.5),
        )
        rollouts = play(
            make_team(checkpoint), debates, QUESTIONS[:2], SAMPLING, seed=1, engine=engine
        )
        assert [rollout.rewards.tolist() for rollout in rollouts] == [[[0.0, -0.5]]] * 2
        assert [m.cut for m in rollouts[0].transcript.messages] == [False, True]

    def test_a_debate_that_ends_early_has_fewer_messages(self, checkpoint) -> None:
        team = make_team(checkpoint)
        for base in team.bases:
            base.chat.decode = lambda ids: "\\boxed{5}"  # type: ignore[method-assign]
        rollouts = play(team, make_debates(stop="consensus"), QUESTIONS[:2], SAMPLING, seed=1)
        for rollout in rollouts:
            assert len(rollout.completions) == len(rollout.prompts) == 2
            assert rollout.scored.tolist() == [[True, True], [False, False], [False, False]]

    def test_more_agents_than_the_team_has(self, checkpoint) -> None:
        team = make_team(checkpoint, num_agents=1)
        with pytest.raises(ValueError, match=r"no policy 'agent_1'.*made for 1 agents"):
            play(team, make_debates(), QUESTIONS, SAMPLING, seed=1)
