"""Caches kept from turn to turn: what is read is less, and what is said is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cache_cases import (
    FRESH,
    QUESTIONS,
    SAMPLING,
    counted,
    debates,
    least,
    logprobs,
    make_team,
    said,
)
from miniatures import load_team, stir
from torch import Tensor

from maporl_agents.bridges.bench_players import TeamSpeaker
from maporl_agents.bridges.speaker import LocalSpeaker
from maporl_agents.measure.evaluate import evaluate
from maporl_agents.models.caches.kept_caches import BaseCaches, KeptCaches
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete, sample
from maporl_agents.play.rollout import play
from maporl_agents.trees.sample_tree import grow_trees
from maporl_agents.types import Request, TokenIds


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "grouped"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("rows", [512, 4])
def test_messages_are_those_of_prompts_that_are_read_anew(
    checkpoint, family: str, tuning: str, rows: int
) -> None:
    team = make_team(checkpoint, family, tuning=tuning)
    assert all(base.packs for base in team.bases)
    kept = play(team, debates(), QUESTIONS, replace(SAMPLING, max_rows=rows), seed=1)
    with counted(team) as anew:
        fresh = play(team, debates(), QUESTIONS, FRESH, seed=1)
    assert said(kept) == said(fresh)
    assert (logprobs(kept) - logprobs(fresh)).abs().max() < 1e-12
    assert anew["read"] > 1.5 * least(fresh)
    assert len({len(ids) for ids in said(kept)}) > 3  # rows ended at different times


PARTIAL_TURNS = [
    (3, 3, "leader"),
    (2, 3, "dialogue"),
    (3, 2, "teams_and_judge"),
    (3, 1, "review"),
    (3, 1, "retrieve"),
    (3, 3, "lessons"),
]


@pytest.mark.parametrize(("agents", "turns", "protocol"), PARTIAL_TURNS)
def test_where_not_all_speak_the_messages_are_the_same_and_own_ids_stay(
    checkpoint, agents: int, turns: int, protocol: str
) -> None:
    """Agents speak in other turns than their peers, so caches and prompts grow unevenly."""
    team = make_team(checkpoint)
    game = debates(agents, turns, protocol=protocol)
    kept = play(team, game, QUESTIONS, SAMPLING, seed=1)
    fresh = play(team, game, QUESTIONS, FRESH, seed=1)
    assert said(kept) == said(fresh)
    assert (logprobs(kept) - logprobs(fresh)).abs().max() < 1e-12
    for rollout in kept:
        own: dict[str, list[TokenIds]] = {}
        for message, prompt, completion, _ in rollout.spoken():
            earlier = own.setdefault(message.agent, [])
            if protocol != "lessons":  # where nobody reads an earlier try
                assert all(holds(prompt, ids) for ids in earlier)
            earlier.append(completion.ids)


def holds(prompt: TokenIds, part: TokenIds) -> bool:
    return any(prompt[i : i + len(part)] == part for i in range(len(prompt) - len(part) + 1))


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padded_prompts_and_a_cache_that_grows_give_the_same(checkpoint, family: str) -> None:
    """As for models that are not of plain attention alone; equal prompts are read once, too."""
    team = make_team(checkpoint, family, tuning="lora")
    packed = play(team, debates(), QUESTIONS * 2, SAMPLING, seed=1)
    for base in team.bases:
        base.packs = False
    with counted(team) as found:
        padded = play(team, debates(), QUESTIONS * 2, SAMPLING, seed=1)
    assert said(packed) == said(padded)
    assert (logprobs(packed) - logprobs(padded)).abs().max() < 1e-12
    prompts = [
        {
            (policy, prompt)
            for one in padded
            for prompt, policy in zip(
                one.prompts[turn : turn + 3], one.policies[turn : turn + 3], strict=True
            )
        }
        for turn in (0, 3, 6)
    ]
    assert found["read"] == sum(len(prompt) for turn in prompts for _, prompt in turn)


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_log_probabilities_are_those_of_the_plain_model(checkpoint, family: str) -> None:
    """Against one forward pass of the library per message: no batch, no padding, no cache."""
    team = make_team(checkpoint, family, tuning="lora")
    for rollout in play(team, debates(), QUESTIONS, SAMPLING, seed=2):
        messages = zip(rollout.prompts, rollout.completions, rollout.policies, strict=True)
        for prompt, one, policy in messages:
            with torch.no_grad():
                logits = team.base_of(policy).plain_logits(torch.tensor(prompt + one.ids), policy)
            expected = logits[len(prompt) - 1 : -1].log_softmax(-1)
            expected = expected.gather(1, torch.tensor(one.ids)[:, None])[:, 0]
            gap = torch.tensor(one.logprobs, dtype=torch.float64) - expected
            assert gap.abs().max() < 1e-12


class TestWhatIsRead:
    @pytest.mark.parametrize("turns", [3, 4])
    def test_each_id_once(self, checkpoint, turns: int) -> None:
        team = make_team(checkpoint, turns=turns, tuning="lora")
        with counted(team) as found:
            rollouts = play(team, debates(turns=turns), QUESTIONS, SAMPLING, seed=1)
        assert least(rollouts) <= found["read"] <= 1.02 * least(rollouts)
        assert found["padding"] < 0.5 * found["read"]

    def test_messages_in_turn_and_debates_that_end_early(self, checkpoint) -> None:
        team = make_team(checkpoint, tuning="full")
        for options in ({"protocol": "sequential"}, {"stop": "consensus"}):
            with counted(team) as found:
                rollouts = play(team, debates(**options), QUESTIONS, SAMPLING, seed=1)
            # A rollout's first prompts can be alike for all agents of one base.
            assert found["read"] <= 1.02 * least(rollouts)

    def test_equal_prompts_of_equal_weights_once(self, checkpoint) -> None:
        team = make_team(checkpoint, tuning="lora")
        prompts = [tuple(range(5, 25)), (5, 6, 7)] * 8
        policies = [team.policy(agent, 0) for agent in (0, 0, 0, 0, 1, 1, 1, 1)] * 2
        with counted(team) as found:
            several = sample(team, prompts, policies, SAMPLING, seed=1)
        assert found["read"] == 2 * (20 + 3)
        for place in (0, 5, 11):
            asked = [Request(policies[place], prompts[place], 0, place)]
            [alone] = complete(team, asked, SAMPLING, seed=1)
            assert alone.ids == several[place].ids

    def test_a_long_common_beginning_once(self, checkpoint) -> None:
        """Of each policy's weights; what is said is the same as by prompts that are read whole."""
        team = make_team(checkpoint, tuning="lora")
        common = tuple(5 + i % 60 for i in range(40))
        prompts = [(*common, 7 + i, 9) for i in range(8)]
        policies = [team.policy(i % 2, 0) for i in range(8)]
        asked = [
            Request(policy, prompt, 0, i)
            for i, (policy, prompt) in enumerate(zip(policies, prompts, strict=True))
        ]
        kept = KeptCaches(team.bases, 1.0)
        with counted(team) as found:
            several = complete(team, asked, SAMPLING, seed=1, kept=kept)
        assert found["read"] == 2 * 40 + 8 * 2
        whole = complete(team, asked, SAMPLING, seed=1)
        assert [one.ids for one in several] == [one.ids for one in whole]
        for one, other in zip(several, whole, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-12)
        with counted(team) as found:  # the beginning went on with the messages, and is still known
            complete(team, asked, SAMPLING, seed=1, kept=kept)
        assert found["read"] <= 8 * 2
        few = complete(team, asked[:4], SAMPLING, seed=1, kept=KeptCaches(team.bases, 1.0))
        assert [one.ids for one in few] == [one.ids for one in whole[:4]]

    def test_a_frozen_model_reads_for_all_policies_alike(self, checkpoint) -> None:
        team = make_team(checkpoint, tuning="none")
        policies = [team.policy(agent, 0) for agent in range(3)]
        with counted(team) as found:
            sample(team, [(5, 6, 7, 8)] * 3, policies, SAMPLING, seed=1)
        assert found["read"] == 4

    @pytest.mark.parametrize("joining", ["aligned", "cross"])
    def test_branches_of_a_tree_share_the_cache_of_their_prefix(
        self, checkpoint, joining: Any
    ) -> None:
        team = make_team(checkpoint, tuning="lora")
        results = []
        for sampling in (SAMPLING, FRESH):
            with counted(team) as found:
                roots = grow_trees(
                    team, debates(2, 2), QUESTIONS, sampling, (2, 2), joining=joining, seed=1
                )
            nodes = [node for root in roots for node in root.nodes()]
            results.append([[[c.ids for c in row] for row in node.completions] for node in nodes])
            if sampling is SAMPLING:
                kept = found["read"]
        assert results[0] == results[1]
        unread, known = 0, set()
        for node in nodes:
            for request in node.requests:
                own = node.own.get(request.agent, ())
                key = (request.policy, request.prompt)
                if key in known:
                    continue
                known.add(key)
                unread += len(request.prompt)
                if own:  # the prompt of the first turn and all of the message but its last id
                    start = request.prompt.index(own[0][0])
                    unread -= self._before(roots[node.tree], request.agent) + len(own[0]) - 1
                    assert start >= 0
        assert kept <= 1.02 * unread

    @staticmethod
    def _before(root: Any, agent: int) -> int:
        [request] = [one for one in root.requests if one.agent == agent]
        return len(request.prompt)

    def test_evaluations_benchmark_players_and_speakers(self, checkpoint) -> None:
        team = make_team(checkpoint, tuning="lora")
        with counted(team) as found:
            evaluate(team, debates(), QUESTIONS, SAMPLING, seed=1)
        rollouts = play(team, debates(), QUESTIONS, SAMPLING, seed=1)
        assert found["read"] < 1.5 * least(rollouts)
        game = debates()
        game.reset(QUESTIONS)
        speaker = TeamSpeaker(team, SAMPLING, 0)
        counts = []
        while prompts := game.prompts():
            with counted(team) as found:
                game.step(speaker(prompts))
            counts.append(found["read"])
        assert max(counts[1:]) < counts[0] + 3 * 3 * 3 * 40
        partner = LocalSpeaker(team, SAMPLING, seat=1, seed=0)
        text = "how much is two and three , and why do you think so ?"
        [answer] = partner([text])
        with counted(team) as found:
            partner([f"{text}{answer} again ?"])
        assert found["read"] < 10


class TestKeptCaches:
    """What is found, what goes, and when everything is forgotten."""

    def caches(self, checkpoint: Any, tokens: float) -> tuple[Team, BaseCaches]:
        team = load_team(checkpoint("llama"), tuning="lora")
        [base] = team.bases
        return team, BaseCaches(base, tokens * self.states(1)[0][0].nbytes * 2)

    def states(self, length: int) -> tuple[tuple[Tensor, Tensor], ...]:
        keys = torch.arange(length, dtype=torch.float32).expand(2, length).reshape(2, length, 1)
        return ((keys.clone(), -keys),)

    def put(self, caches: BaseCaches, ids: TokenIds, reader: str = "a") -> None:
        caches.put(reader, ids, self.states(len(ids)))

    def lengths(self, caches: BaseCaches, *prompts: TokenIds, reader: str = "a") -> list[int]:
        found = caches.take([reader] * len(prompts), prompts)
        return [0 if past is None else past.length for past in found]

    def test_the_longest_common_beginning_of_the_same_weights(self, checkpoint) -> None:
        _, caches = self.caches(checkpoint, 100)
        self.lengths(caches)
        for ids in ((1, 2, 3), (1, 2, 4, 5, 6), (7,), (1, 2, 4, 9)):
            self.put(caches, ids)
        prompts = [(1, 2, 4, 5, 8), (1, 2, 3, 4), (1, 2, 3), (6, 1), (7, 7), (1, 3), (9,)]
        assert self.lengths(caches, *prompts, reader="b") == [0] * 7
        assert self.lengths(caches, *prompts) == [4, 3, 2, 0, 1, 1, 0]

    def test_against_a_search_of_everything(self, checkpoint) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw() -> TokenIds:
            length = int(torch.randint(1, 7, (), generator=generator))
            return tuple(torch.randint(0, 3, (length,), generator=generator).tolist())

        _, caches = self.caches(checkpoint, 1e6)
        self.lengths(caches)
        known = [draw() for _ in range(40)]
        for ids in known:
            self.put(caches, ids)
        prompts = [draw() for _ in range(60)]
        expected = [
            max(
                next((i for i, (a, b) in enumerate(zip(k, p, strict=False)) if a != b), 99)
                if k[: len(p)] != p and p[: len(k)] != k
                else min(len(k), len(p) - 1)
                for k in known
            )
            for p in prompts
        ]
        assert self.lengths(caches, *prompts) == expected

    def test_a_longer_cache_takes_the_place_of_its_beginning(self, checkpoint) -> None:
        _, caches = self.caches(checkpoint, 100)
        self.lengths(caches)
        for ids in ((1, 2), (1, 2, 3), (1, 2)):
            self.put(caches, ids)
        assert caches.nbytes == 3 * self.states(1)[0][0].nbytes * 2

    def test_one_that_is_used_whole_leaves_until_it_comes_back_longer(self, checkpoint) -> None:
        _, caches = self.caches(checkpoint, 100)
        self.lengths(caches)
        self.put(caches, (1, 2, 3))
        assert self.lengths(caches, (1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 9)) == [3, 3, 2]
        assert caches.nbytes == 0
        assert self.lengths(caches, (1, 2, 3, 4)) == [0]

    def test_room_is_made_by_caches_of_earlier_calls_and_not_of_the_same(self, checkpoint) -> None:
        _, caches = self.caches(checkpoint, 7)
        self.lengths(caches)
        self.put(caches, (1, 1, 1))
        self.put(caches, (2, 2, 2))
        self.put(caches, (3, 3, 3))
        assert self.lengths(caches, (1, 1, 9), (2, 2, 9), (3, 3, 9)) == [2, 2, 0]
        self.put(caches, (4, 4, 4))  # the oldest makes way
        self.put(caches, (5, 5, 5, 5))
        self.put(caches, (6,) * 8)  # larger than all the room
        assert self.lengths(caches, (1, 1, 9), (2, 2, 9), (4, 4, 9), (5, 9)) == [0, 0, 2, 1]
        assert caches.nbytes == 7 * self.states(1)[0][0].nbytes * 2

    def test_everything_is_forgotten_when_weights_change(self, checkpoint) -> None:
        team, caches = self.caches(checkpoint, 100)
        self.lengths(caches)
        self.put(caches, (1, 2, 3))
        assert self.lengths(caches, (1, 2, 9)) == [2]
        with torch.no_grad():
            next(iter(team.trainable()["agent_1"].values())).add_(1.0)
        assert self.lengths(caches, (1, 2, 9)) == [0]
        assert caches.nbytes == 0

    def test_a_speaker_does_not_speak_from_old_weights(self, checkpoint) -> None:
        team = make_team(checkpoint, tuning="lora")
        speaker = LocalSpeaker(team, SAMPLING, seat=0, seed=0)
        text = "how much is two and three , and why do you think so ?"
        [answer] = speaker([text])
        stir(team, seed=7, scale=0.3)
        with counted(team) as found:
            speaker([f"{text}{answer} again ?"])
        assert found["read"] > 20

    def test_little_room_changes_what_is_read_and_nothing_else(self, checkpoint) -> None:
        team = make_team(checkpoint, tuning="lora")
        whole = play(team, debates(), QUESTIONS, SAMPLING, seed=1)
        [base] = team.bases
        config = base.model.config
        token = 2 * 8 * config.num_hidden_layers * config.hidden_size  # bytes of an id
        some = replace(SAMPLING, cache_gb=300 * token / 1e9, max_rows=4)
        with counted(team) as found:
            again = play(team, debates(), QUESTIONS, some, seed=1)
        assert said(again) == said(whole)
        with counted(team) as anew:
            play(team, debates(), QUESTIONS, FRESH, seed=1)
        assert least(whole) < found["read"] < anew["read"]

    def test_no_room_keeps_nothing(self, checkpoint) -> None:
        team = load_team(checkpoint("llama"))
        assert KeptCaches(team.bases, 0.0).of(team.bases[0]) is None
        assert KeptCaches(team.bases, 1.0).of(team.bases[0]) is not None
        team.bases[0].packs = False
        assert KeptCaches(team.bases, 1.0).of(team.bases[0]) is None


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3"])
def test_models_with_sliding_windows_read_each_prompt_anew(checkpoint, family: str) -> None:
    team = load_team(checkpoint(family), num_turns=2, tuning="lora")
    assert not any(base.packs for base in team.bases)
    kept = play(team, debates(2, 2), QUESTIONS, SAMPLING, seed=1)
    fresh = play(team, debates(2, 2), QUESTIONS, FRESH, seed=1)
    assert said(kept) == said(fresh)
