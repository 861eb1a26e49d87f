"""The debate as an environment of verifiers: the real library, against a server of our own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers.v1", reason="needs the extra verifiers")
pytest.importorskip("maporl_debate", reason="needs pip install ./environments/maporl_debate")

import http_servers
import verifiers.v1 as vf

from maporl_env.batched import BatchedDebate
from maporl_env.config import DebateConfig
from maporl_env.prompts import chat
from maporl_env.types import Question

APPLES = Question("apples", "3 and 4 apples?", "7", private=("", "It is 7."))
PEARS = Question("pears", "2 and 2 pears?", "4", private=("", "It is 4."))


def reply(model: str, messages: list[dict[str, str]]) -> str:
    """Speak as a model: the one called "wrong" is wrong until it reads a peer's box."""
    asked = messages[-1]["content"]
    right = "7" if "apples" in asked else "4"
    seen = rf"\boxed{{{right}}}" in asked
    if model == "wrong" and not seen:
        return r" \boxed{0}" + "\n"
    return rf" I say \boxed{{{right}}}" + "\n"


class FakeServer(http_servers.Server):
    """An OpenAI-compatible server that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.asked: list[dict[str, Any]] = []
        self.broken = False


class Handler(http_servers.Handler):
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.read())
        self.server.asked.append(body)
        status, given = 200, completion(body["model"], reply(body["model"], body["messages"]))
        if self.server.broken:
            status, given = 400, {"error": {"message": "no such model here"}}
        self.send(given, status)


def completion(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with http_servers.running(FakeServer()) as server:
        yield server


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "fruit.jsonl"
    file.write_text("".join(json.dumps(q.to_dict()) + "\n" for q in (APPLES, PEARS)))
    return file


def config_of(questions: Path, **fields: Any) -> vf.EnvConfig:
    rows = {"id": "maporl-debate", "questions": str(questions), **fields.pop("taskset", {})}
    return vf.resolve_env_config({"taskset": rows, **fields})


def episodes_of(config: vf.EnvConfig, server: FakeServer) -> list[vf.Episode]:
    async def play() -> list[vf.Episode]:
        env = vf.load_environment(config)
        ctx = vf.ModelContext(
            client=vf.EvalClientConfig(base_url=server.url),
            model="right",
            sampling=vf.SamplingConfig(),
        )
        async with env.serving():
            return [await env.run_episode(task, ctx) for task in env.taskset]

    return asyncio.run(play())


def as_played_here(questions: Path, **options: Any) -> tuple[Any, list[list[dict[str, str]]]]:
    """Return the rewards of the same debates without verifiers, and the chats in order."""
    batch = BatchedDebate(
        DebateConfig(task=questions, num_agents=2, num_turns=2, **options), batch_size=2
    )
    batch.reset(questions=[APPLES, PEARS])
    read: dict[int, list[list[dict[str, str]]]] = {0: [], 1: []}
    while not batch.over:
        texts = []
        for prompt in batch.prompts():
            messages = chat(prompt.view)
            read[prompt.debate].append(messages)
            texts.append(reply("wrong" if prompt.agent == "agent_0" else "right", messages))
        batch.step(texts)
    return batch.turn_rewards(), read[0] + read[1]


def test_messages_prompts_and_rewards_are_those_of_a_debate_without_verifiers(
    server: FakeServer, questions: Path
) -> None:
    options = {"gamma": 0.5, "alpha": (0.25, 0)}
    config = config_of(questions, agent_0={"model": "wrong"}, options=options)
    episodes = episodes_of(config, server)
    rewards, prompts = as_played_here(questions, **options)
    assert [episode.ok for episode in episodes] == [True, True]
    assert sorted(map(str, (body["messages"] for body in server.asked))) == sorted(
        map(str, prompts)
    )
    for number, episode in enumerate(episodes):
        assert len(episode.traces) == 4
        for trace in episode.traces:
            turn, seat = int(trace.metrics["turn"]), int(trace.agent.name.removeprefix("agent_"))
            assert trace.reward == pytest.approx(float(rewards[number][turn, seat]))
            assert trace.agent.trainable
            assert trace.metrics["vote"] == 1
    first = episodes[0].by_agent["agent_0"]
    assert sorted(trace.metrics["verifier_score"] for trace in first) == [0, 1]
    assert sorted(trace.reward for trace in first) == pytest.approx([1 / 3, 1])
    assert not any("It is 7." in str(trace.nodes) for trace in first)  # the other's private text


def test_an_agent_has_a_model_of_its_own(server: FakeServer, questions: Path) -> None:
    episodes_of(config_of(questions, agent_1={"model": "wrong"}), server)
    assert sorted(body["model"] for body in server.asked) == ["right"] * 4 + ["wrong"] * 4


def test_a_refusing_server_fails_the_episode_and_is_no_message(
    server: FakeServer, questions: Path
) -> None:
    server.broken = True
    (one, _) = episodes_of(config_of(questions), server)
    assert not one.ok
    assert "no such model here" in str(one.errors)
    assert all(trace.reward == 0 and not trace.ok for trace in one.traces)


def nothing_to_say(_: Any, responses: list[str]) -> list[None]:
    """Score no message, as a verifier that failed."""
    return [None] * len(responses)


def test_a_message_without_a_score_is_not_trained(server: FakeServer, questions: Path) -> None:
    verifier = f"{Path(__file__)}:nothing_to_say"
    for episode in episodes_of(config_of(questions, verifier=verifier), server):
        assert episode.ok
        assert not any(trace.agent.trainable for trace in episode.traces)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_agents": 9}, "from 1 to 8, not 9"),
        ({"num_turns": 0}, "num_turns"),
        ({"options": {"gama": 1}}, "gamma"),
        ({"options": {"task": "shopping"}}, "set it beside options"),
        ({"taskset": {"split": "tests"}}, "tests"),
    ],
)
def test_wrong_settings_are_one_sentence(
    questions: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        vf.load_environment(config_of(questions, **fields))


@pytest.mark.thorough
def test_the_command_of_verifiers_plays_a_debate(
    server: FakeServer, questions: Path, tmp_path: Path
) -> None:
    command = [
        *(str(Path(sys.executable).with_name("vf-eval")), "maporl-debate", "--no-rich"),
        *("--no-push", "--model", "right", "--client.base-url", server.url, "-n", "1", "-r", "2"),
        *("--env.taskset.questions", str(questions), "--env.agent-0.model", "wrong"),
        *("--output-dir", str(tmp_path / "out"), "--run.name", "fruit"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (tmp_path / "out").rglob("traces.jsonl")
    episodes = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(episode["traces"]) for episode in episodes] == [4, 4]
    assert len(server.asked) == 8
