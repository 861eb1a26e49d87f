"""Messages of servers: texts of the local sampler, adapters by new names, failing servers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from served_cases import SAMPLING, adapted, clients, engine, learn, requests_of
from vllm_stand_in import Faults, StandIn, running

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.vllm_engine import Served
from maporl_agents.types import Completion, Request, StopReason
from maporl_env.services.http_json import (
    RemoteError,
    RemoteGarbage,
    RemoteRefused,
    RemoteUnavailable,
)


@pytest.fixture(scope="module")
def folder(checkpoint) -> Path:
    return checkpoint("llama")


@pytest.fixture
def server(folder: Path) -> Iterator[StandIn]:
    with running(folder) as made:
        yield made


@pytest.fixture
def other(folder: Path) -> Iterator[StandIn]:
    with running(folder) as made:
        yield made


def spoken(folder: Path) -> tuple[Team, list[Request], list[Completion]]:
    """Return a team, what is asked of it, and what the local sampler writes."""
    team = adapted(folder)
    asked = requests_of(team)
    return team, asked, complete(team, asked, SAMPLING, 3)


def same(found: list[Completion], wanted: list[Completion]) -> bool:
    """Whether ids, texts and ends are equal, and log-probabilities but for rounding."""
    return [(one.ids, one.text, one.stop) for one in found] == [
        (one.ids, one.text, one.stop) for one in wanted
    ] and all(
        one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
        for one, two in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("temperature", [0.7, 1.0, 0.0])
def test_servers_write_what_the_local_sampler_writes(
    folder: Path, server: StandIn, other: StandIn, tmp_path: Path, temperature: float
) -> None:
    team = adapted(folder)
    sampling = replace(SAMPLING, temperature=temperature)
    asked = requests_of(team)
    with engine(team, [server, other], tmp_path, sampling) as served:
        found = served(team, asked, sampling, 3)
    assert same(found, complete(team, asked, sampling, 3))
    assert all(one.served for one in found)
    sent = [
        len(each.asked) - 2 for each in (server, other)
    ]  # but for those that first ask the base
    assert sent == [2, 2]


def test_a_policy_that_is_not_trained_speaks_as_the_bare_base(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team = adapted(folder, train_agents=(1,))
    asked = requests_of(team)
    with engine(team, [server], tmp_path) as served:
        found = served(team, asked, SAMPLING, 3)
    assert same(found, complete(team, asked, SAMPLING, 3))
    named = {body["model"].partition("@")[0] for body in server.asked}
    assert named == {"served", "agent_1"}
    assert {name.partition("@")[0] for name in server.loaded} == {"agent_1"}


def test_each_version_has_new_names_and_old_ones_are_let_go(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team = adapted(folder)
    with engine(team, [server], tmp_path) as served:
        for step in range(3):
            found = served(team, requests_of(team), SAMPLING, step)
            assert same(found, complete(team, requests_of(team), SAMPLING, step))
            served(team, requests_of(team), SAMPLING, step)  # the same weights: nothing is sent
            assert served.distance < 1e-4
            learn(team, seed=step + 2)
        assert len(server.loaded) == len(set(server.loaded)) == 6
        here = set(server.loaded) - set(server.unloaded)
        assert {path.name for path in tmp_path.iterdir()} >= here
    assert set(server.unloaded) == set(server.loaded)
    assert not list(tmp_path.iterdir())


def test_a_pinned_engine_keeps_speaking_with_its_version(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team, asked, before = spoken(folder)
    with engine(team, [server], tmp_path, replace(SAMPLING, lag=1)) as served:
        pinned = served.pinned()
        learn(team, seed=2)
        served.publish()
        assert same(pinned(team, asked, SAMPLING, 3), before)
        served.check()  # of the version that spoke, not of the newest
        assert same(served(team, asked, SAMPLING, 3), complete(team, asked, SAMPLING, 3))


def test_stop_texts_and_limits_end_messages_as_in_the_local_sampler(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team, asked, first = spoken(folder)
    text = team.bases[0].chat.decode(first[0].ids[:2]).strip()
    sampling = replace(SAMPLING, stop=(text,), agent_max_new_tokens=(4, 3))
    with engine(team, [server], tmp_path, sampling) as served:
        found = served(team, asked, sampling, 3)
    assert same(found, complete(team, asked, sampling, 3))
    assert found[0].stop is StopReason.TEXT


# -- failing servers ---------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [{"drops": 1}, {"status": 1}, {"slow": 1}])
def test_a_passing_failure_is_tried_again(
    folder: Path, server: StandIn, tmp_path: Path, faults: dict[str, int]
) -> None:
    team = adapted(folder)
    asked = requests_of(team, 1)
    with engine(team, [server], tmp_path, retries=2, seconds=30) as served:
        if "slow" in faults:
            # Many attempts, since a busy machine is slow as well.
            served.servers = clients([server], retries=20, seconds=0.5)
        for name, count in faults.items():
            setattr(server.faults, name, count)
        served.servers[0].lost = ""
        found = served(team, asked[:1], SAMPLING, 3)
    assert same(found, complete(team, asked[:1], SAMPLING, 3))


def test_a_refusal_is_told_at_once_in_the_servers_words(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team = adapted(folder)
    with engine(team, [server], tmp_path, retries=5) as served:
        server.faults.status, server.faults.code = 99, 400
        server.faults.words = "maximum context length is 16 tokens"
        before = len(server.asked)
        with pytest.raises(RemoteRefused, match="maximum context length is 16 tokens"):
            served(team, requests_of(team)[:1], SAMPLING, 3)
    assert len(server.asked) == before + 1


def test_the_debates_of_a_server_that_dies_go_to_the_others(
    folder: Path, server: StandIn, other: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    team = adapted(folder)
    asked = requests_of(team, 3)
    first = complete(team, asked, SAMPLING, 3)
    with engine(team, [server, other], tmp_path) as served:
        server.faults.dies_after = len(server.asked) + 1
        found = served(team, asked, SAMPLING, 3)
        assert served.servers[0].lost
        learn(team, seed=2)
        again = served(team, asked, SAMPLING, 4)  # the next version, by the one that is left
    assert same(found, first)
    assert same(again, complete(team, asked, SAMPLING, 4))
    told = [record for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert len(told) == 2  # once for each version


def test_no_server_left_is_one_sentence(folder: Path, server: StandIn, tmp_path: Path) -> None:
    team = adapted(folder)
    with engine(team, [server], tmp_path, retries=0) as served:
        server.stop()
        with pytest.raises(RemoteUnavailable, match=r"no server is left: .*--resume"):
            served(team, requests_of(team), SAMPLING, 3)


def test_a_server_that_was_restarted_is_sent_the_adapters_again(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team = adapted(folder)
    asked = requests_of(team)
    with engine(team, [server], tmp_path) as served:
        server.faults.forgets_after = len(server.asked)
        found = served(team, asked, SAMPLING, 3)
    assert same(found, complete(team, asked, SAMPLING, 3))
    assert len(server.loaded) == 4  # each of two adapters twice
    assert len(set(server.loaded)) == 2


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (
            Faults(no_lora=True),
            r"loads no adapters: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        ),
        (Faults(max_rank=4), r"LoRA rank 8 is greater than max_lora_rank 4.*--max-lora-rank 8"),
        (Faults(raw=True), r"nats per token.*--logprobs-mode processed_logprobs"),
        (Faults(status=99, code=401, words="invalid api key"), "invalid api key"),
    ],
)
def test_a_server_that_cannot_serve_is_refused_at_the_start(
    folder: Path, tmp_path: Path, faults: Faults, words: str
) -> None:
    team = adapted(folder)
    cold = replace(SAMPLING, temperature=0.3)
    with running(folder, faults) as server, pytest.raises(RemoteError, match=words):
        Served(team, clients([server]), cold, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_server_with_another_base_is_refused_at_the_start(
    folder: Path, checkpoint, tmp_path: Path
) -> None:
    team = adapted(folder)
    with (
        running(checkpoint("llama", seed=5)) as server,
        pytest.raises(RemoteError, match=r"other weights than the base model.*team\.model"),
    ):
        Served(team, clients([server]), replace(SAMPLING, mismatch=0.05), tmp_path)


def test_an_address_without_a_server_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with running(folder) as server:
        pass
    with pytest.raises(RemoteUnavailable, match=r"cannot be reached.*sampling\.url"):
        Served(adapted(folder), clients([server], retries=0), SAMPLING, tmp_path)


# -- hostile answers ---------------------------------------------------------------------------


def choice(**changes: object):
    """Return what spoils the first choice of an answer."""

    def spoil(answer: dict) -> dict:
        [first] = answer["choices"]
        return answer | {"choices": [first | changes]}

    return spoil


HOSTILE = {
    "no JSON": (lambda _: b"<html>", "no JSON"),
    "a list": (lambda _: [1], "another form"),
    "no choice": (lambda answer: answer | {"choices": []}, "another form"),
    "no ids": (choice(token_ids=None), "no token ids"),
    "words for ids": (choice(token_ids=["a"]), "no whole numbers"),
    "a negative id": (choice(token_ids=[-1, 2, 3, 4]), "no whole numbers"),
    "true for an id": (choice(token_ids=[True, 2, 3, 4]), "no whole numbers"),
    "too many": (choice(token_ids=list(range(9))), "9 tokens of at most 4"),
    "none": (choice(token_ids=[]), "0 tokens"),
    "fewer log-probabilities": (choice(logprobs={"token_logprobs": [-1.0]}), "another number"),
    "no log-probabilities": (choice(logprobs=None), "another form"),
    "null": (choice(logprobs={"token_logprobs": [None] * 4}), "that are none"),
    "a probability": (choice(logprobs={"token_logprobs": [0.5] * 4}), "that are none"),
    "not a number": (choice(logprobs={"token_logprobs": [float("nan")] * 4}), "that are none"),
    "another prompt": (choice(prompt_token_ids=[5]), "another prompt"),
    "unknown ids": (choice(token_ids=[10**6] * 4), "ids that the tokenizer does not have"),
    "ended early": (
        choice(token_ids=[5], logprobs={"token_logprobs": [-1.0]}, finish_reason="stop"),
        "ended a message that nothing ends",
    ),
}


@pytest.fixture(scope="module")
def asked_once(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StandIn, Served]]:
    """Return a server and its engine that all hostile answers share."""
    with (
        running(folder) as server,
        engine(adapted(folder), [server], tmp_path_factory.mktemp("adapters")) as served,
    ):
        yield server, served


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_message_is_refused(asked_once: tuple[StandIn, Served], kind: str) -> None:
    server, served = asked_once
    server.faults.spoil, words = HOSTILE[kind]
    with pytest.raises(RemoteGarbage, match=words):
        served(served.team, requests_of(served.team, 1)[:1], SAMPLING, 3)


def test_what_follows_an_unknown_id_is_left_out(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team = adapted(folder)
    asked = requests_of(team, 1)[:1]
    [whole] = complete(team, asked, SAMPLING, 3)
    with engine(team, [server], tmp_path) as served:
        server.faults.spoil = choice(token_ids=[*whole.ids[:2], 10**6, 7])
        [found] = served(team, asked, SAMPLING, 3)
    assert found.ids == whole.ids[:2]
    assert len(found.logprobs) == 2
    assert found.stop is StopReason.LENGTH


def test_all_that_a_models_own_settings_could_change_is_said(
    folder: Path, server: StandIn, tmp_path: Path
) -> None:
    team = adapted(folder)
    request = Request("agent_0", (5, 6, 7), 0, 0)
    with engine(team, [server], tmp_path) as served:
        served(team, [request], Sampling(max_new_tokens=3, temperature=0.5), 3)
    body = server.asked[-1]
    assert body["prompt"] == [5, 6, 7]
    assert (body["max_tokens"], body["temperature"], body["n"]) == (3, 0.5, 1)
    assert (body["top_p"], body["top_k"], body["min_p"]) == (1.0, 0, 0.0)
    assert body["repetition_penalty"] == 1.0
    assert body["ignore_eos"] is True
    assert body["stop_token_ids"] == sorted(team.bases[0].chat.stop_ids)
    assert 0 <= body["seed"] < 2**63
