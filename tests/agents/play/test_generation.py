"""Generation: one distribution, reproducible, and no row's business but its own."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from miniatures import load_team, make_model, make_rollout, stir
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from maporl_agents.config import Sampling
from maporl_agents.models.bases import FullBase
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete, sample
from maporl_agents.text.chat import Chat
from maporl_agents.types import Completion, Request, StopReason, TokenIds
from maporl_agents.update.batching import collate
from maporl_agents.update.token_logprobs import score_tokens

PROMPTS: list[TokenIds] = [(5, 6, 7), (9, 8, 10, 11, 12, 13, 14, 15), (20,), (30, 0, 31, 32)]
POLICIES = ["agent_0", "agent_1", "agent_1", "agent_0"]
SHORT = Sampling(max_new_tokens=6)


def make_team(checkpoint, family: str = "llama", *, stops: int = 0, **settings: object) -> Team:
    """A team whose agents differ; with `stops`, every so many-th id ends a message."""
    team = load_team(checkpoint(family), num_turns=1, **settings)
    stir(team)
    for base in team.bases:
        if stops:
            base.chat.stop_ids = frozenset(range(0, base.vocab_size, stops))
    return team


def ids_of(completions: list[Completion]) -> list[TokenIds]:
    return [one.ids for one in completions]


def scored(team: Team, completions: list[Completion], temperature: float) -> list[torch.Tensor]:
    """The trainer's log-probabilities of sampled completions."""
    places = [0, 1, 1, 0]  # seats
    parts = []
    for prompt, one, seat in zip(PROMPTS, completions, places, strict=True):
        prompts, ids = [prompt] * 2, [one.ids] * 2
        batch, _ = collate(team, [make_rollout(team, prompts, ids, rewards=np.zeros((1, 2)))])
        with torch.no_grad():
            parts.append(score_tokens(team, batch, temperature=temperature).logprobs[seat])
    return parts


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize(
    "temperature", [0.7, 1.0, *(pytest.param(t, marks=pytest.mark.thorough) for t in (0.6, 1.3))]
)
def test_the_sampler_and_the_trainer_agree(
    checkpoint, family: str, tuning: str, temperature: float
) -> None:
    """Failure A1: left-padded with a cache here, right-padded without one there; 1e-5 in fp32."""
    team = make_team(checkpoint, family, tuning=tuning, stops=9)
    sampling = replace(SHORT, temperature=temperature)
    completions = sample(team, PROMPTS, POLICIES, sampling, seed=1)
    for one, expected in zip(completions, scored(team, completions, temperature), strict=True):
        assert len(one.logprobs) == len(one.ids) == len(expected)
        torch.testing.assert_close(torch.tensor(one.logprobs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_left_padding_changes_nothing_in_double_precision(
    checkpoint, family: str, tuning: str
) -> None:
    team = make_team(checkpoint, family, tuning=tuning, double=True)
    completions = sample(team, PROMPTS, POLICIES, SHORT, seed=1)
    for one, expected in zip(completions, scored(team, completions, 1.0), strict=True):
        gap = torch.tensor(one.logprobs, dtype=torch.float64) - expected
        assert gap.abs().max() < 1e-12


def test_greedy_takes_the_most_probable_token(checkpoint) -> None:
    team = make_team(checkpoint, "gpt2")
    completions = sample(team, PROMPTS, POLICIES, replace(SHORT, temperature=0.0), seed=1)
    for prompt, policy, one in zip(PROMPTS, POLICIES, completions, strict=True):
        ids = list(prompt)
        for token, logprob in zip(one.ids, one.logprobs, strict=True):
            with torch.no_grad():
                logits = team.base_of(policy).model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert token == int(logits.argmax())
            assert logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-5)
            ids.append(token)


class TestReproducible:
    def test_equal_arguments_give_equal_completions(self, checkpoint) -> None:
        team = make_team(checkpoint, stops=9)
        first = sample(team, PROMPTS, POLICIES, SHORT, seed=1)
        assert sample(team, PROMPTS, POLICIES, SHORT, seed=1) == first
        assert ids_of(sample(team, PROMPTS, POLICIES, SHORT, seed=2)) != ids_of(first)

    def test_batch_mates_that_stop_early_change_nothing(self, checkpoint) -> None:
        """Rows 0 and 3 keep their text, whatever stands beside them and whenever that ends."""
        team = make_team(checkpoint, double=True, stops=4)
        sampling = replace(SHORT, max_new_tokens=12)
        policies = ["agent_0"] * 4
        seen = set()
        for seed in range(3):
            kept = {}
            for mates in ([(41,), (42, 43)], [(50, 51), (60,)], [(5, 6), (61, 62, 63)]):
                prompts = [PROMPTS[0], *mates, PROMPTS[3]]
                done = sample(team, prompts, policies, sampling, seed=seed)
                kept[tuple(mates)] = (done[0].ids, done[3].ids)
                seen.add(tuple(len(one.ids) for one in done))
            assert len(set(kept.values())) == 1
        assert len(seen) > 3  # lengths did differ

    @pytest.mark.parametrize("temperature", [0.0, 1.3])
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_a_message_does_not_depend_on_the_rows_beside_it(
        self, checkpoint, family: str, temperature: float
    ) -> None:
        """However rows are split and ordered, and whichever of them are asked for at all."""
        team = make_team(checkpoint, family, double=True, stops=7)
        prompts, policies, debates = PROMPTS * 3, POLICIES * 3, list(range(12))
        sampling = Sampling(max_new_tokens=12, temperature=temperature)
        whole = ids_of(sample(team, prompts, policies, sampling, seed=1))
        assert len(set(map(len, whole))) > 2
        for rows in (1, 5):
            split = replace(sampling, max_rows=rows)
            assert ids_of(sample(team, prompts, policies, split, seed=1)) == whole
        some = [7, 2, 11, 4]
        asked = [Request(policies[i], prompts[i], 0, debates[i]) for i in some]
        found = complete(team, asked, sampling, seed=1)
        assert ids_of(found) == [whole[i] for i in some]

    def test_debate_and_agent_name_the_noise(self, checkpoint) -> None:
        """Equal prompts are answered differently in another debate, or by another agent."""
        team = load_team(checkpoint("llama"), num_turns=1, tuning="none")
        prompts, policies = [PROMPTS[1]] * 3, [team.policy(0, 0)] * 3
        agents, debates = [0, 1, 0], [0, 0, 1]
        asked = [Request(*one) for one in zip(policies, prompts, agents, debates, strict=True)]
        said = complete(team, asked, SHORT, seed=1)
        assert len(set(ids_of(said))) == 3


class TestTheEnd:
    """Failures A6 and A9."""

    def test_every_completion_ends_where_it_should(self, checkpoint) -> None:
        team = make_team(checkpoint, stops=5)
        stops = team.bases[0].chat.stop_ids
        assert team.bases[0].chat.pad_id in stops
        completions = sample(team, PROMPTS * 8, POLICIES * 8, SHORT, seed=1)
        for one in completions:
            assert not stops & set(one.ids[:-1])
            assert (one.stop is StopReason.EOS) == (one.ids[-1] in stops)
            assert len(one.ids) == 6 or one.stop is StopReason.EOS
        assert {one.stop for one in completions} == {StopReason.EOS, StopReason.LENGTH}

    def test_the_text_is_the_decoded_ids_without_the_stop(self, checkpoint) -> None:
        team = make_team(checkpoint, stops=5)
        for one in sample(team, PROMPTS * 4, POLICIES * 4, SHORT, seed=1):
            body = one.ids[:-1] if one.stop is StopReason.EOS else one.ids
            tokenizer = team.bases[0].chat.tokenizer
            assert one.text == tokenizer.decode(list(body), clean_up_tokenization_spaces=False)

    def test_ids_that_the_tokenizer_does_not_know_are_never_sampled(self, checkpoint) -> None:
        """Failure A29: 200 rows of embedding beyond the tokenizer, a third of the vocabulary."""
        team = load_team(checkpoint("llama", padded=200), num_turns=1)
        base = team.bases[0]
        assert base.model.config.vocab_size == len(base.chat.tokenizer) + 200
        hot = replace(SHORT, temperature=5.0)
        completions = sample(team, PROMPTS * 16, POLICIES * 16, hot, seed=1)
        assert max(i for one in completions for i in one.ids) < len(base.chat.tokenizer)
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
        known = (logits[: len(base.chat.tokenizer)] / 5).log_softmax(-1)
        first = completions[0]
        assert first.logprobs[0] == pytest.approx(float(known[first.ids[0]]), abs=1e-5)


def test_all_agents_on_one_base_are_generated_in_one_batch(
    checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many forward passes as the longest completion has tokens, for twelve agents."""
    team = load_team(checkpoint("llama"), num_agents=12, num_turns=1, tuning="lora")
    [base] = team.bases
    calls: list[int] = []
    reads = base.hidden

    def counted(ids: torch.Tensor, *given: object, **options: object) -> torch.Tensor:
        calls.append(len(ids))
        return reads(ids, *given, **options)

    monkeypatch.setattr(base, "hidden", counted)
    policies = [f"agent_{seat}" for seat in range(12)]
    done = sample(team, [(5, 6, seat + 7) for seat in range(12)], policies, SHORT, seed=1)
    assert len(calls) == max(len(one.ids) for one in done)
    assert calls[0] == 12


class TestStatistics:
    """Draws follow softmax(logits / temperature): chi-square over the pairs of two tokens."""

    @pytest.mark.thorough
    @pytest.mark.parametrize("temperature", [0.7, 1.3])
    def test_chi_square(self, temperature: float) -> None:
        words = ["<eos>", "a", "b", "c", "d"]
        backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<eos>"))
        backend.pre_tokenizer = WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
        model = make_model("llama", tokenizer, scale=0.08)
        chat = Chat(tokenizer)
        base = FullBase(model, chat, ["all"], trained=False)
        team = Team([base], sharing="one", num_agents=1, num_turns=1)
        n = 8_000
        sampling = Sampling(max_new_tokens=2, temperature=temperature, max_rows=4096)
        drawn = Counter(
            one.ids for one in sample(team, [(1, 2)] * n, ["all"] * n, sampling, seed=3)
        )
        expected = self.pair_probabilities(model, (1, 2), temperature)
        assert sum(expected.values()) == pytest.approx(1)
        assert set(drawn) <= set(expected)
        statistic = sum((drawn[pair] - n * p) ** 2 / (n * p) for pair, p in expected.items())
        # 21 outcomes, 20 degrees of freedom: P(chi2 > 45.3) = 0.001.
        assert len(expected) == 21
        assert statistic < 45.3
        assert min(expected.values()) * n > 5

    def pair_probabilities(
        self, model: torch.nn.Module, prompt: TokenIds, temperature: float
    ) -> dict[TokenIds, float]:
        def next_token(ids: TokenIds) -> list[float]:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            return (logits.double() / temperature).softmax(-1).tolist()

        first = next_token(prompt)
        found: dict[TokenIds, float] = {(0,): first[0]}
        for i in range(1, 5):
            for j, p in enumerate(next_token((*prompt, i))):
                found[i, j] = first[i] * p
        return found


class TestStopTexts:
    """A message ends with the token that completes a text; nothing else about it changes."""

    SAMPLING = Sampling(max_new_tokens=24, temperature=1.3)

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_each_message_is_the_unstopped_one_up_to_the_first_completion(
        self, checkpoint, family: str
    ) -> None:
        """Against a loop that decodes every beginning of every message; texts span tokens."""
        team = make_team(checkpoint, family)
        chat = team.bases[0].chat
        whole = sample(team, PROMPTS * 12, POLICIES * 12, self.SAMPLING, seed=4)
        texts = [one.text for one in whole if len(one.text) > 12]
        stops = (texts[0][5:8], texts[1][3:6], texts[2][6:10])
        sampling = replace(self.SAMPLING, stop=stops)
        stopped = sample(team, PROMPTS * 12, POLICIES * 12, sampling, seed=4)
        reasons = set()
        for free, cut in zip(whole, stopped, strict=True):
            end = next(
                (
                    n
                    for n in range(1, len(free.ids) + 1)
                    if any(stop in chat.decode(free.ids[:n]) for stop in stops)
                ),
                len(free.ids),
            )
            assert cut.ids == free.ids[:end]
            assert cut.logprobs == pytest.approx(free.logprobs[:end], abs=1e-5)
            assert cut.text == chat.decode(cut.ids)
            found = any(stop in cut.text for stop in stops)
            assert cut.stop is (StopReason.TEXT if found else free.stop)
            reasons.add(cut.stop)
        assert {StopReason.TEXT, StopReason.LENGTH} <= reasons

    def test_a_character_of_several_tokens(self, checkpoint) -> None:
        """Bytes of a sign that no token holds whole: complete only with the last of them."""
        chat = make_team(checkpoint).bases[0].chat
        ids = chat.encode("5 \u2713 6")
        sign = [n for n in range(1, len(ids) + 1) if chat.completes(ids[:n], ("\u2713",))]
        assert len(chat.encode("\u2713")) == 3
        assert sign[0] == next(
            n for n in range(1, len(ids) + 1) if "\u2713" in chat.decode(ids[:n])
        )

    def test_scores_agree_with_a_stopped_message(self, checkpoint) -> None:
        team = make_team(checkpoint)
        free = sample(team, PROMPTS[:2], ["agent_0", "agent_1"], self.SAMPLING, seed=4)
        sampling = replace(self.SAMPLING, stop=(free[0].text[2:4], free[1].text[2:4]))
        stopped = sample(team, PROMPTS[:2], ["agent_0", "agent_1"], sampling, seed=4)
        rollout = make_rollout(
            team, PROMPTS[:2], [one.ids for one in stopped], rewards=np.zeros((1, 2))
        )
        with torch.no_grad():
            scored = score_tokens(team, collate(team, [rollout])[0], temperature=1.3).logprobs
        for row, one in zip(scored, stopped, strict=True):
            assert one.stop is StopReason.TEXT
            assert row[: len(one.ids)].tolist() == pytest.approx(one.logprobs, abs=1e-5)

    def test_an_end_token_comes_before_a_text(self, checkpoint) -> None:
        team = make_team(checkpoint, stops=1)  # every token ends a message
        sampling = replace(self.SAMPLING, stop=("a", "e", " "))
        for one in sample(team, PROMPTS, POLICIES, sampling, seed=4):
            assert one.stop is StopReason.EOS
            assert (len(one.ids), one.text) == (1, "")


class TestPerAgent:
    def test_limits_and_stop_texts(self) -> None:
        sampling = Sampling(max_new_tokens=9, stop=("\n\n",), agent_stop=("", "END"))
        assert [sampling.limit_of(seat) for seat in range(3)] == [9, 9, 9]
        assert [sampling.stops_of(seat) for seat in range(3)] == [
            ("\n\n",),
            ("\n\n", "END"),
            ("\n\n", "END"),
        ]
        own = replace(sampling, agent_max_new_tokens=(3, 5))
        assert [own.limit_of(seat) for seat in range(3)] == [3, 5, 5]
        assert Sampling().stops_of(0) == ()

    def test_agents_keep_to_their_own(self, checkpoint) -> None:
        """And what one may write changes nothing for the other."""
        team = make_team(checkpoint)
        free = sample(team, PROMPTS, POLICIES, SHORT, seed=1, seats=[0, 1, 1, 0])
        end = free[1].text[1:3]
        sampling = replace(SHORT, agent_max_new_tokens=(2, 6), agent_stop=("", end))
        own = sample(team, PROMPTS, POLICIES, sampling, seed=1, seats=[0, 1, 1, 0])
        assert [one.ids for one in (own[0], own[3])] == [one.ids[:2] for one in (free[0], free[3])]
        assert own[0].stop is StopReason.LENGTH
        assert own[1].stop is StopReason.TEXT
        assert end in own[1].text
        for mine, one in zip(own, free, strict=True):
            assert mine.logprobs == pytest.approx(one.logprobs[: len(mine.ids)], abs=1e-5)

    def test_only_the_agent_with_the_longer_limit_needs_room(self, checkpoint) -> None:
        team = make_team(checkpoint, "gpt2")
        sampling = Sampling(agent_max_new_tokens=(2, 9))
        prompts = [(5,) * 1020, (5,)]
        sample(team, prompts, ["agent_0", "agent_1"], sampling, seed=1, seats=[0, 1])
        with pytest.raises(ValueError, match="1020 tokens and 9 new"):
            sample(team, prompts, ["agent_0", "agent_1"], sampling, seed=1, seats=[1, 0])


class TestBadInput:
    def test_a_prompt_that_leaves_no_room_in_the_window(self, checkpoint) -> None:
        """Not an index error of the position embedding; no token is drawn."""
        team = make_team(checkpoint, "gpt2")
        fits = Sampling(max_new_tokens=4, temperature=0.0)
        sample(team, [(5,) * 1020], ["agent_0"], fits, seed=1)
        with pytest.raises(ValueError, match=r"1021 tokens and 4 new .* window of 1024 .* lower"):
            sample(team, [(5,), (5,) * 1021], ["agent_0"] * 2, fits, seed=1)

    def test_an_empty_prompt(self, checkpoint) -> None:
        with pytest.raises(ValueError, match="no tokens"):
            sample(make_team(checkpoint), [()], ["agent_0"], SHORT, seed=1)

    @pytest.mark.parametrize(
        "settings",
        [
            {"max_new_tokens": 0},
            {"max_rows": 0},
            {"temperature": -1},
            {"temperature": math.nan},
            {"agent_max_new_tokens": (3, 0)},
        ],
    )
    def test_settings_that_mean_nothing(self, settings) -> None:
        with pytest.raises(ValueError, match="must be"):
            Sampling(**settings)

    def test_an_empty_stop_text(self) -> None:
        with pytest.raises(ValueError, match=r"empty text.*leave"):
            Sampling(stop=("\n", ""))

    def test_an_unknown_policy(self, checkpoint) -> None:
        with pytest.raises(ValueError, match=r"no policy 'agent_7'.*agent_0"):
            sample(make_team(checkpoint), [(5,)], ["agent_7"], SHORT, seed=1)


def test_a_window_filling_completion_is_scored(checkpoint) -> None:
    team = make_team(checkpoint, "gpt2")
    prompt = (5,) * 1020
    [one] = sample(team, [prompt], ["agent_0"], replace(SHORT, max_new_tokens=4), seed=1)
    rollout = make_rollout(team, [prompt] * 2, [one.ids] * 2, rewards=np.zeros((1, 2)))
    batch, _ = collate(team, [rollout])
    with torch.no_grad():
        logprobs = score_tokens(team, batch, temperature=1.0).logprobs[0, : len(one.ids)]
    torch.testing.assert_close(logprobs, torch.tensor(one.logprobs), atol=1e-5, rtol=1e-5)
