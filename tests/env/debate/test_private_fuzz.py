"""Private texts are read by their agent alone, hidden references by nobody, whoever plays."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from maporl_env import debate_v0, prompts, replay
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.bridges import speakers, trl
from maporl_env.bridges.endpoint import Endpoint
from maporl_env.bridges.single_agent import SingleAgentDebate
from maporl_env.bridges.vector import VectorDebate
from maporl_env.observations.tokens import ByteTokenizer
from maporl_env.protocols import PROTOCOLS
from maporl_env.tasks.base import Task
from maporl_env.types import Question, Transcript
from maporl_env.verifiers import RemoteVerifier

from ..verifiers.test_judge import Reply, completion, serving
from .private_questions import SIGN, mark, told
from .test_fuzz import hostile_text

Read = dict[str, list[str]]
"""The texts that came to each agent; what came to everybody stands under ""."""


class Raising:
    """A verifier that reads everything and puts it into its exception."""

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        raise RuntimeError(f"{questions[0].to_dict()} {questions[0].private} {questions[0].hidden}")


def role(seat: int) -> str:
    """A persona, which stands in the view of its own agent alone."""
    return f"<role-of-{seat}>"


def some_task(rng: random.Random, asked: Question) -> Task:
    """A task whose worked examples, other questions, have secrets of the same form."""
    train = [replace(asked, id=f"told/{n}", prompt=f"What is it, then? {n}") for n in range(2)]
    return Task("told", {"train": train, "test": [asked]})


def some_options(rng: random.Random) -> dict[str, Any]:
    protocol = rng.choice(sorted(PROTOCOLS))
    fixed = {
        "self_correction": 1,
        "pipeline": 3,
        "dialogue": 2,
        "teams_and_judge": 4,
        "retrieve": 4,
    }
    num_agents = fixed.get(protocol, rng.randint(1, 4))
    least = 2 if protocol == "teams_and_judge" else 1
    options: dict[str, Any] = {
        "task": some_task(rng, told(num_agents, rng.choice([(), (), (0,)]))),
        "protocol": protocol,
        "num_agents": num_agents,
        "num_turns": {"retrieve": 1, "lessons": 3}.get(protocol) or rng.randint(least, 4),
        "split": "test",
        "reward_mode": rng.choice(["terminal", "score"]),
        "reward_feedback": rng.random() < 0.5,
        "history": rng.choice(["all", "all", "last", "none"]),
        "token_budget": rng.choice([None, None, 300]),
        "max_chars": rng.choice([50, 1_000]),
        "verifier": Raising() if rng.random() < 0.3 else None,
        "render_mode": "ansi",
        "shots": 0 if protocol in PARTIAL else rng.choice([0, 0, 1]),
    }
    if protocol == "joint":
        options["feedback"] = lambda question, text: f"{question} {question.to_dict()}"
        options["show_parts"] = rng.random() < 0.5
    elif protocol not in PARTIAL:
        options["stop"] = rng.choice(["fixed", "consensus"])
    if protocol == "dialogue":
        for name in ("history", "token_budget", "reward_feedback"):
            del options[name]
    if protocol != "pipeline" and rng.random() < 0.5:
        options["personas"] = [f"You are {role(seat)}." for seat in range(num_agents)]
    return options


PARTIAL = ("leader", "dialogue", "teams_and_judge", "retrieve", "lessons")


def at_once(options: dict[str, Any]) -> dict[str, Any]:
    """The same with a protocol in which all agents speak at once."""
    if options["protocol"] in ("sequential", "pipeline", "review", *PARTIAL):
        return {**options, "protocol": "debate"}
    return options


def privileged(options: dict[str, Any]) -> str:
    """The agent that may read the reference; "" for none."""
    return "agent_1" if options["protocol"] == "dialogue" else ""


def texts(rng: random.Random) -> Callable[[Sequence[Any]], list[str]]:
    return lambda asked: [hostile_text(rng) for _ in asked]


def watched(rng: random.Random, read: Read, agent: str) -> Callable[[Sequence[str]], list[str]]:
    """A partner that plays one agent and keeps what it reads."""

    def speak(asked: Sequence[str]) -> list[str]:
        read[agent] += asked
        return texts(rng)(asked)

    return speak


def bytes_of(state: np.ndarray) -> str:
    return bytes(state[state > 0].astype(np.uint8)).decode(errors="replace")


def look(env: Any, read: Read) -> None:
    """Note what is for everybody: infos, pictures in text, the state, errors, faults."""
    core = env.unwrapped
    read[""] += [str(core.current_infos()), str(core.render()), core.state_text()]
    read[""] += [bytes_of(env.state()), str(core.faults), str(core.game.scorer.last_error)]
    for call in (
        lambda: env.unwrapped.debate.post("agent_9", "x"),
        lambda: env.unwrapped.debate.post("agent_0", None),
        lambda: env.reset(options={"question": {"prompt": "x"}}),
        lambda: env.reset(options={"question": replace(core.debate.question, private=("x",) * 9)}),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        read[""] += [str(error.value), repr(error.value)]


def through_aec(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    env = debate_v0.env(**options)
    env.reset(seed=0)
    while env.agents:
        for agent in env.possible_agents:
            read[agent] += [str(env.observe(agent)), prompts.render(env.unwrapped.view(agent))]
            read[agent] += [json.dumps(env.unwrapped.chat(agent))]
        look(env, read)
        done = env.terminations[env.agent_selection]
        env.step(None if done else hostile_text(rng))
    return read


def through_parallel(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    options = at_once(options)
    env = debate_v0.parallel_env(**options)
    observations, infos = env.reset(seed=0)
    while env.agents:
        for agent, observation in observations.items():
            read[agent] += [observation, str(infos[agent])]
        actions = {agent: hostile_text(rng) for agent in env.agents}
        observations, _, _, _, infos = env.step(actions)
    return read


def through_gymnasium(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    agents = [f"agent_{seat}" for seat in range(options["num_agents"])]
    learner = rng.randrange(len(agents))
    partners = [watched(rng, read, agent) for agent in agents if agent != agents[learner]]
    env = SingleAgentDebate(partners, learner, **options)
    observation, info = env.reset(seed=0)
    over = False
    while not over:
        read[agents[learner]] += [observation, str(info), str(env.render())]
        observation, _, over, _, info = env.step(hostile_text(rng))
    return read


def through_vector(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    options = at_once(options)
    env = VectorDebate(2, texts(rng), **options)
    observations, infos = env.reset(seed=0)
    for _ in range(options["num_turns"]):
        read["agent_0"] += [*observations, str(infos)]
        if env._ended.all():
            break
        observations, *_, infos = env.step([hostile_text(rng), hostile_text(rng)])
    return read


def through_batch(options: dict[str, Any], rng: random.Random) -> Read:
    """A batch, and then its transcripts played again from their JSON."""
    read: Read = defaultdict(list)
    batch = BatchedDebate(DebateConfig(**options), 2)
    batch.reset()
    while asked := batch.prompts():
        for prompt in asked:
            read[prompt.agent] += [prompt.text, prompts.render(prompt.view)]
        batch.step(texts(rng)(asked))
    saved = [Transcript.from_json(one.to_json()) for one in batch.transcripts]
    recordings = [replay.Recording.of_transcript(one) for one in saved if one.turn]
    given = {name: options[name] for name in ("protocol", "history") if name in options}
    again = replay.start(recordings, **given)
    recorded = replay.Recorded(recordings)
    while asked := again.prompts():
        for prompt in asked:
            read[prompt.agent].append(prompt.text)
        again.step(recorded(asked))
    return read


def through_speakers(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    given = {name: value for name, value in options.items() if name != "num_agents"}
    agents = [f"agent_{seat}" for seat in range(options["num_agents"])]
    speakers.play([watched(rng, read, agent) for agent in agents], seed=0, **given)
    return read


def through_endpoint(options: dict[str, Any], rng: random.Random) -> Read:
    """A person at the keyboard, and all others behind an address."""
    read: Read = defaultdict(list)
    given = {name: value for name, value in options.items() if name != "num_agents"}
    agents = [f"agent_{seat}" for seat in range(options["num_agents"])]

    def reply(agent: str) -> Reply:
        def send(handler: Any, body: Any) -> None:
            read[agent].append(json.dumps(body))
            handler.send(completion(hostile_text(rng)))

        return send

    with ExitStack() as stack:
        servers = [stack.enter_context(serving(reply(agent))) for agent in agents[1:]]
        person = speakers.Person(lambda cue: hostile_text(rng), read[agents[0]].append)
        models = [Endpoint(one.url, "m", retries=0, pause_seconds=0.0) for one in servers]
        speakers.play([person, *models], seed=0, **given)
    return read


def through_remote_verifier(options: dict[str, Any], rng: random.Random) -> Read:
    """A verifier behind an address, which quotes in its refusal all that it was sent."""
    sent: list[str] = []

    def refuse(handler: Any, body: Any) -> None:
        sent.append(json.dumps(body))
        handler.send(json.dumps({"error": sent[-1]}).encode(), 400)

    with serving(refuse) as server:
        remote = RemoteVerifier(server.url.removesuffix("/v1"), retries=0)
        read = through_aec({**options, "verifier": remote}, rng)
    assert all(SIGN in text and "-alone>" not in text and "<role-" not in text for text in sent)
    return read


def through_tokens(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    tokens: dict[str, Any] = {"observation": "tokens", "observation_tokens": 2_048}
    tokens |= {"message_tokens": 8, "action": rng.choice(["message", "token"])}
    given = {name: value for name, value in options.items() if name != "token_budget"}
    env = debate_v0.env(**given, **tokens)
    env.reset(seed=0)
    for agent in env.possible_agents:
        env.action_space(agent).seed(rng.randrange(2**31))
    text = ByteTokenizer()
    while env.agents:
        for agent in env.possible_agents:
            ids = env.observe(agent)
            read[agent].append(text.decode([int(i) - 1 for i in ids if 0 < i <= 256]))
        ids = [int(i) - 1 for i in env.state() if 0 < i <= 256]
        read[""] += [text.decode(ids), str(env.infos), str(env.render())]
        done = env.terminations[env.agent_selection]
        env.step(None if done else env.action_space(env.agent_selection).sample())
    return read


def through_sb3(options: dict[str, Any], rng: random.Random) -> Read:
    sb3 = pytest.importorskip("maporl_env.bridges.sb3", reason="needs stable-baselines3")
    read: Read = defaultdict(list)
    given = {name: value for name, value in options.items() if name != "token_budget"}
    given = at_once(given)
    tokens: dict[str, Any] = {"observation": "tokens", "observation_tokens": 2_048}
    envs = sb3.DebateVecEnv(
        given["num_agents"], learner="all", message_tokens=8, action="message", **given, **tokens
    )
    envs.action_space.seed(rng.randrange(2**31))
    seen, infos, text = envs.reset(), envs.reset_infos, ByteTokenizer()
    for _ in range(given["num_turns"]):
        for seat, (ids, info) in enumerate(zip(seen, infos, strict=True)):
            said = text.decode([int(i) - 1 for i in ids if 0 < i <= 256])
            read[f"agent_{seat}"] += [said, str({**info, "terminal_observation": None})]
        seen, _, _, infos = envs.step(np.array([envs.action_space.sample() for _ in infos]))
    return read


def through_trl(options: dict[str, Any], rng: random.Random) -> Read:
    [question] = options["task"].split("test")
    return {
        f"agent_{seat}": [json.dumps(trl.rows([question], agent=seat)[0]["prompt"])]
        for seat in range(options["num_agents"])
    }


ROUTES = [
    *(through_aec, through_parallel, through_gymnasium, through_vector, through_batch),
    *(through_speakers, through_tokens, through_sb3, through_trl),
    *(through_endpoint, through_remote_verifier),
]


def check(read: Read, question: Question, num_agents: int, informed: str) -> Iterator[str]:
    """Yield the agents that read something; fail where one read what is not its own."""
    for agent, seen in read.items():
        others = [w(s) for s in range(num_agents) if agent != f"agent_{s}" for w in (mark, role)]
        for text in seen:
            assert SIGN not in text or agent == informed
            assert not [one for one in others if one in text]
        if agent and seen:
            own = question.private_of(int(agent[-1]))
            assert any(own in text for text in seen)
            yield agent


@pytest.mark.thorough
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_no_agent_reads_what_is_not_its_own(
    route: Callable[..., Read], caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(route.__name__)
    readers = 0
    for _ in range(25):
        options = some_options(rng)
        [question] = options["task"].split("test")
        found = check(route(options, rng), question, options["num_agents"], privileged(options))
        readers += len(list(found))
    assert readers > 20
    assert SIGN not in caplog.text
    assert "-alone>" not in caplog.text
