"""A product of experts: the distribution that is sampled is the product, whoever shares a base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from miniatures import load_team, make_tokenizer, save_miniature, stir

from maporl_agents.config import Sampling
from maporl_agents.mixtures.product_of_experts import ProductOfExperts, product
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.speak import speak
from maporl_agents.types import Request

BOTH = ("agent_0", "agent_1")
ASKED = [
    Request("agent_0", prompt, 0, debate)
    for debate, prompt in enumerate([(5, 6, 7), (9, 8, 10, 11, 12, 13), (20,), (5, 6, 7)])
]
SHORT = Sampling(max_new_tokens=6)


def make_team(checkpoint, tuning: str, *, stops: int = 5) -> Team:
    team = load_team(checkpoint("llama"), num_turns=1, tuning=tuning)
    stir(team)
    for base in team.bases:
        base.chat.stop_ids = frozenset(range(0, base.vocab_size, stops))
    return team


def expected(team: Team, prompt: tuple[int, ...], temperature: float) -> torch.Tensor:
    """The product's log-probabilities after a text, by the plain models."""
    ids = torch.tensor(prompt)
    with torch.no_grad():
        parts = [team.base_of(one).plain_logits(ids, one)[-1].log_softmax(-1) for one in BOTH]
    return ((parts[0] * 0.7 + parts[1] * 0.6) / temperature).log_softmax(-1)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_probabilities_are_those_of_the_product(
    checkpoint, tuning: str, temperature: float
) -> None:
    team = make_team(checkpoint, tuning)
    sampling = Sampling(max_new_tokens=6, temperature=temperature)
    written = speak(team, ASKED, sampling, 3, engine=ProductOfExperts(BOTH, (0.7, 0.6)))
    assert len({one.ids for one in written}) > 1
    for request, one in zip(ASKED, written, strict=True):
        assert one.ids[-1] in team.bases[0].chat.stop_ids or len(one.ids) == 6
        assert not {*one.ids[:-1]} & team.bases[0].chat.stop_ids
        for place, (token, logprob) in enumerate(zip(one.ids, one.logprobs, strict=True)):
            whole = expected(team, (*request.prompt, *one.ids[:place]), temperature or 1.0)
            assert logprob == pytest.approx(float(whole[token]), abs=1e-4)
            if temperature == 0:
                assert float(whole[token]) == pytest.approx(float(whole.max()), abs=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_of_one_expert_is_that_expert(checkpoint, tuning: str) -> None:
    """The same ids as by the sampler, from the same numbers."""
    team = make_team(checkpoint, tuning)
    alone = [Request("agent_1", one.prompt, one.agent, one.debate) for one in ASKED]
    for engine in (ProductOfExperts(("agent_1",)), ProductOfExperts(("agent_1", "agent_1"))):
        written, plain = engine(team, ASKED, SHORT, 4), complete(team, alone, SHORT, 4)
        assert [one.ids for one in written] == [one.ids for one in plain]
        for one, other in zip(written, plain, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
            assert (one.text, one.stop) == (other.text, other.stop)


def test_messages_do_not_depend_on_those_beside_them(checkpoint, monkeypatch) -> None:
    team = make_team(checkpoint, "lora")
    engine = ProductOfExperts(BOTH)
    whole = engine(team, ASKED, SHORT, 5)
    assert [one.ids for one in engine(team, ASKED[::-1], SHORT, 5)] == [
        one.ids for one in whole[::-1]
    ]
    monkeypatch.setattr("maporl_agents.mixtures.joint_decoding.READ_AT_ONCE", 1)
    assert [one.ids for one in engine(team, ASKED, SHORT, 5)] == [one.ids for one in whole]


def test_one_veto_is_enough() -> None:
    factors = torch.tensor([[[0.5, 0.5, 0.0], [0.1, 0.1, 0.8]]]).log()
    found = product(factors, (1.0, 1.0)).exp()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0.0]]))


def test_no_request_is_no_message(checkpoint) -> None:
    assert ProductOfExperts(BOTH)(make_team(checkpoint, "lora"), [], SHORT, 0) == []


@pytest.mark.parametrize(
    ("policies", "weights", "complaint"),
    [
        ((), (), "at least one policy"),
        (BOTH, (1.0,), "2 experts need as many weights, not 1"),
        (BOTH, (1.0, 0.0), "above 0"),
        (BOTH, (1.0, float("nan")), "above 0"),
    ],
)
def test_wrong_settings_are_refused(policies, weights, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ProductOfExperts(policies, weights)


def test_vocabularies_that_differ_are_refused(checkpoint, tmp_path: Path) -> None:
    other = make_tokenizer(size=300)
    folder = save_miniature(tmp_path / "other", "llama", other)
    team = load_team([checkpoint("llama"), folder], num_turns=1)
    with pytest.raises(ValueError, match=r"different vocabularies .* entries differ"):
        ProductOfExperts(BOTH)(team, ASKED, SHORT, 0)


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        (Sampling(max_new_tokens=6, top_k=3), "over the whole vocabulary"),
        (Sampling(max_new_tokens=6, max_thinking_tokens=2), "max_thinking_tokens"),
        (Sampling(max_new_tokens=6000), "do not fit the window"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(checkpoint, sampling, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ProductOfExperts(BOTH)(make_team(checkpoint, "lora"), ASKED, sampling, 0)
    with pytest.raises(ValueError, match="no policy 'agent_9'"):
        ProductOfExperts(("agent_9",))(make_team(checkpoint, "lora"), ASKED, SHORT, 0)
