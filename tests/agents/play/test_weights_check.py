"""Which weights spoke: the slope in closed form, its power under noise, and servers that lie."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from served_cases import SAMPLING, adapted, engine, learn, requests_of
from vllm_stand_in import Faults, running

from maporl_agents.play.spoken import OtherWeights
from maporl_agents.play.weights_check import as_before, copies, logprobs_of, slope_of


def test_the_slope_is_1_for_the_sent_weights_and_0_for_the_others() -> None:
    sent, other = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.5, -2.0, -2.0])
    for said, slope in ((sent, 1.0), (other, 0.0), ((sent + other) / 2, 0.5)):
        found = slope_of(said, sent, other)
        assert found.slope == pytest.approx(slope)
        assert found.error == pytest.approx(0.0, abs=1e-6)


def test_slope_and_error_by_hand() -> None:
    """With s - q = (2, 1) and p - q = (1, 1): slope 3/2, rest (1/2, -1/2), error 1/2."""
    said, sent, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), torch.tensor([-1.0, -1])
    found = slope_of(said, sent, other)
    assert found.slope == pytest.approx(1.5)
    assert found.error == pytest.approx(0.5)


def test_weights_that_do_not_differ_say_nothing() -> None:
    same = torch.tensor([-1.0, -2.0])
    found = slope_of(same + 0.1, same, same)
    assert math.isnan(found.slope)
    assert not found.others
    assert not slope_of(same[:1], same[:1], same[:1] + 1).others  # one token has no spread


@pytest.mark.parametrize("noise", [1e-6, 0.01, 0.05])
def test_an_update_far_below_the_noise_of_kernels_is_seen(noise: float) -> None:
    """200 tokens, an update of .02 nats: the right weights are never accused, the old ones are."""
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for _ in range(100):
        other = -3 * torch.rand(200, generator=generator)
        sent = other + 0.02 * torch.randn(200, generator=generator)
        rounding = noise * torch.randn(200, generator=generator)
        assert not slope_of(sent + rounding, sent, other).others
        wrong += slope_of(other + rounding, sent, other).others
    assert wrong == 100 or noise == 0.05
    assert wrong > 50


def test_the_trainers_log_probabilities_are_those_of_the_sampler(checkpoint) -> None:
    from maporl_agents.play.local_engine import complete

    team = adapted(checkpoint("llama"))
    asked = requests_of(team)
    for request, one in zip(asked, complete(team, asked, SAMPLING, 3), strict=True):
        base = team.base_of(request.policy)
        found = logprobs_of(base, base.adapter_of(request.policy), request.prompt, one.ids, 0.7)
        assert found.tolist() == pytest.approx(one.logprobs, abs=1e-4)


def test_weights_are_put_back_after_a_look_at_older_ones(checkpoint) -> None:
    team = adapted(checkpoint("llama"))
    [base] = team.bases
    old = copies(base.adapter_weights("agent_0"))  # type: ignore[attr-defined]
    before = logprobs_of(base, "agent_0", (5, 6), (7, 8), 1.0)
    learn(team, seed=2)
    now = copies(base.adapter_weights("agent_0"))  # type: ignore[attr-defined]
    with as_before(base, "agent_0", old):  # type: ignore[arg-type]
        assert torch.equal(logprobs_of(base, "agent_0", (5, 6), (7, 8), 1.0), before)
    left = base.adapter_weights("agent_0")  # type: ignore[attr-defined]
    assert all(torch.equal(weight, now[name]) for name, weight in left.items())
    assert all(weight.requires_grad for weight in base.trainable("agent_0").values())


@pytest.mark.parametrize(
    ("faults", "words", "scale"),
    [
        ({"stale": True}, "agent_0 before its last update", 0.002),
        ({"skips": True}, "the base model", 0.002),
        ({"mixes": True}, r"agent_1@\d", 0.05),  # agents differ by what they learnt apart
        pytest.param(
            *({"stale": True}, "agent_0 before its last update", 0.05), marks=pytest.mark.thorough
        ),
        pytest.param({"skips": True}, "the base model", 0.05, marks=pytest.mark.thorough),
    ],
)
def test_a_server_that_speaks_with_other_weights_stops_the_run(
    checkpoint, tmp_path: Path, faults: dict[str, bool], words: str, scale: float
) -> None:
    """Whatever the size of the update: .002 moves log-probabilities by less than .01 nats."""
    team = adapted(checkpoint("llama"))
    with running(checkpoint("llama")) as server, engine(team, [server], tmp_path) as served:
        served(team, requests_of(team), SAMPLING, 3)
        learn(team, seed=2, scale=scale)
        for name, value in faults.items():
            setattr(server.faults, name, value)
        with pytest.raises(OtherWeights, match=words):
            served(team, requests_of(team), SAMPLING, 4)


def test_the_second_of_two_servers_is_looked_at_too(checkpoint, tmp_path: Path) -> None:
    team = adapted(checkpoint("llama"))
    folder = checkpoint("llama")
    with (
        running(folder) as good,
        running(folder, Faults(stale=True)) as stale,
        engine(team, [good, stale], tmp_path) as served,
    ):
        served(team, requests_of(team), SAMPLING, 3)
        learn(team, seed=2)
        with pytest.raises(OtherWeights, match=stale.url):
            served(team, requests_of(team), SAMPLING, 4)


def test_a_distance_beyond_the_limit_stops_the_run(checkpoint, tmp_path: Path) -> None:
    """A setting that no rounding meets: the figure and the setting are named."""
    team = adapted(checkpoint("llama"))
    strict = replace(SAMPLING, mismatch=1e-12)
    with (
        running(checkpoint("llama")) as server,
        pytest.raises(OtherWeights, match=r"nats per token, and sampling\.mismatch allows 1e-12"),
        engine(team, [server], tmp_path, strict) as served,
    ):
        served(team, requests_of(team), strict, 3)
