"""Private texts are read by their agent alone, hidden references by nobody, whoever plays."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from maporl_env import debate_v0, prompts, replay
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.bridges import speakers, trl
from maporl_env.bridges.single_agent import SingleAgentDebate
from maporl_env.bridges.vector import VectorDebate
from maporl_env.observations.tokens import ByteTokenizer
from maporl_env.prompts import Template
from maporl_env.protocols import PROTOCOLS, JointAnswer, SimultaneousDebate
from maporl_env.tasks import load_task
from maporl_env.tasks.base import Task
from maporl_env.types import Question, Transcript

from .test_fuzz import hostile_text

HIDDEN = "reference-of-nobody"
Read = dict[str, list[str]]
"""The texts that came to each agent; what came to everybody stands under ""."""


def mark(seat: int) -> str:
    return f"<for-{seat}-alone>"


def told(num_agents: int, silent: Sequence[int] = ()) -> Question:
    """A question that tells each agent something, but for the silent ones."""
    private = ["" if seat in silent else f"Your word: {mark(seat)}" for seat in range(num_agents)]
    return Question("told", "What is it?", "7", private=tuple(private), hidden=HIDDEN)


class Raising:
    """A verifier that reads everything and puts it into its exception."""

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        raise RuntimeError(f"{questions[0].to_dict()} {questions[0].private} {questions[0].hidden}")


def some_options(rng: random.Random) -> dict[str, Any]:
    protocol = rng.choice(sorted(PROTOCOLS))
    num_agents = {"self_correction": 1, "pipeline": 3}.get(protocol, rng.randint(1, 4))
    options: dict[str, Any] = {
        "task": [told(num_agents, rng.choice([(), (), (0,)]))],
        "protocol": protocol,
        "num_agents": num_agents,
        "num_turns": rng.randint(1, 4),
        "reward_mode": rng.choice(["terminal", "score"]),
        "reward_feedback": rng.random() < 0.5,
        "history": rng.choice(["all", "all", "last", "none"]),
        "token_budget": rng.choice([None, None, 120]),
        "max_chars": rng.choice([50, 1_000]),
        "verifier": Raising() if rng.random() < 0.3 else None,
        "render_mode": "ansi",
    }
    if protocol == "joint":
        options["feedback"] = lambda question, text: f"{question} {question.to_dict()}"
        options["show_parts"] = rng.random() < 0.5
    else:
        options["stop"] = rng.choice(["fixed", "consensus"])
    if protocol != "pipeline" and rng.random() < 0.5:
        options["personas"] = [f"You are {seat}." for seat in range(num_agents)]
    return options


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
    if options["protocol"] in ("sequential", "pipeline"):
        options = {**options, "protocol": "debate"}
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
    if options["protocol"] in ("sequential", "pipeline"):
        options = {**options, "protocol": "debate"}
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
    given = {name: options[name] for name in ("protocol", "history")}
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


def through_tokens(options: dict[str, Any], rng: random.Random) -> Read:
    read: Read = defaultdict(list)
    tokens: dict[str, Any] = {"observation": "tokens", "observation_tokens": 2_048}
    tokens |= {"message_tokens": 8, "action": rng.choice(["message", "token"])}
    given = {name: value for name, value in options.items() if name != "token_budget"}
    env = debate_v0.env(**given, **tokens)
    env.reset(seed=0)
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


def through_trl(options: dict[str, Any], rng: random.Random) -> Read:
    [question] = options["task"]
    return {
        f"agent_{seat}": [json.dumps(trl.rows([question], agent=seat)[0]["prompt"])]
        for seat in range(options["num_agents"])
    }


ROUTES = [
    *(through_aec, through_parallel, through_gymnasium, through_vector, through_batch),
    *(through_speakers, through_tokens, through_trl),
]


def check(read: Read, question: Question, num_agents: int) -> Iterator[str]:
    """Yield the agents that read something; fail where one read what is not its own."""
    for agent, seen in read.items():
        others = [mark(s) for s in range(num_agents) if agent != f"agent_{s}"]
        for text in seen:
            assert HIDDEN not in text
            assert not [one for one in others if one in text]
        if agent and seen:
            own = question.private_of(int(agent[-1]))
            assert any(own in text for text in seen)
            yield agent


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
def test_no_agent_reads_what_is_not_its_own(
    route: Callable[..., Read], caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(route.__name__)
    readers = 0
    for _ in range(25):
        options = some_options(rng)
        [question] = options["task"]
        readers += len(list(check(route(options, rng), question, options["num_agents"])))
    assert readers > 20
    assert HIDDEN not in caplog.text
    assert "-alone>" not in caplog.text


@pytest.mark.parametrize("history", ["all", "last", "none"])
def test_the_private_text_stands_behind_the_question_in_every_turn(history: str) -> None:
    env = debate_v0.parallel_env(task=[told(2)], num_agents=2, num_turns=3, history=history)
    observations, _ = env.reset(seed=0)
    for turn in range(3):
        for seat, agent in enumerate(env.agents):
            asked = f"What is it?\nYou alone were told: Your word: {mark(seat)}\n"
            assert observations[agent].startswith(f"Question: {asked}")
            times = {"all": turn + 1, "last": min(turn, 1) + 1, "none": 1}[history]
            assert observations[agent].count(asked) == times
        observations, *_ = env.step(dict.fromkeys(env.agents, "hm"))


@pytest.mark.parametrize("history", ["all", "last", "none"])
def test_whoever_reads_others_before_its_first_message_is_told_again(history: str) -> None:
    """In a sequential debate the question stands before and behind the first agent's message."""
    options: dict[str, Any] = {"protocol": "sequential", "history": history}
    batch = BatchedDebate(DebateConfig(task=[told(2)], num_agents=2, **options), 1)
    batch.reset()
    batch.step(["hm"])
    [prompt] = batch.prompts()
    assert prompt.text.count(f"What is it?\nYou alone were told: Your word: {mark(1)}\n") == 2


def test_words_of_the_template_and_no_words_without_a_text() -> None:
    words = Template(private=" ({text})", again="", cue="")
    assert prompts.ask(words, told(2), 1).startswith(
        f"Question: What is it? (Your word: {mark(1)})"
    )
    bare = Template()
    assert prompts.opening(bare, told(2)) == prompts.opening(bare, told(2, silent=[0]), 0)
    assert mark(1) not in prompts.opening(bare, told(2))
    with pytest.raises(ValueError, match="'private' uses"):
        Template(private="{question}")


def test_equal_views_are_equal_private_texts() -> None:
    batch = BatchedDebate(DebateConfig(task=[told(3, silent=[1, 2])], num_agents=3), 1)
    batch.reset()
    first, second, third = (prompt.view for prompt in batch.prompts())
    assert first != second == third


@pytest.mark.parametrize("texts", [("a",), ("a", "b", "c")])
def test_another_number_of_private_texts_is_refused(texts: tuple[str, ...]) -> None:
    question = Question("q/1", "How many?", "4", private=texts)
    says = f"question 'q/1' has private texts for {len(texts)} agents, not for 2"
    with pytest.raises(ValueError, match=says):
        debate_v0.env(task=[Question("q/0", "How many?", "4"), question], num_agents=2)
    with pytest.raises(ValueError, match=says):
        gymnasium.make("maporl/Debate-v0", task=[question], num_agents=2)
    batch = BatchedDebate(DebateConfig(task=[told(2)], num_agents=2), 1)
    with pytest.raises(ValueError, match=says):
        batch.reset([question])
    env = debate_v0.parallel_env(task=[told(2)], num_agents=2)
    before, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=says):
        env.reset(options={"question": question})
    assert {agent: env.unwrapped.observe(agent) for agent in env.agents} == before
    task = Task("two", {"train": [told(2)], "other": [question]})
    assert debate_v0.env(task=task, num_agents=2) is not None  # only the split that is played


def test_a_pinned_question_may_have_private_texts() -> None:
    env = debate_v0.parallel_env(task=[Question("q", "?", "1")], num_agents=2)
    pinned = {"prompt": "Sum?", "answer": "7", "private": ["Three.", "Four."], "hidden": HIDDEN}
    observations, _ = env.reset(options={"question": pinned})
    assert "Three." in observations["agent_0"]
    assert "Four." not in observations["agent_0"]
    with pytest.raises(ValueError, match="private must be a list of texts"):
        env.reset(options={"question": {**pinned, "private": "Three."}})


def test_verifiers_read_everything_and_feedback_nothing() -> None:
    seen: list[Question] = []

    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        seen.extend(questions)
        return [1.0] * len(responses)

    def feedback(question: Question, text: str) -> str:
        assert (question.private, question.hidden) == ((), "")
        return f"{question.answer} fed back"

    env = debate_v0.parallel_env(
        task=[told(2)], num_agents=2, num_turns=2, protocol="joint", verifier=verifier,
        feedback=feedback,
    )  # fmt: skip
    env.reset(seed=0)
    observations, *_ = env.step(dict.fromkeys(env.agents, "hm"))
    assert "7 fed back" in observations["agent_1"]
    assert {q.hidden for q in seen} == {HIDDEN}
    assert {q.private for q in seen} == {told(2).private}


def test_lone_surrogates_of_private_texts_are_replaced() -> None:
    debate = DebateConfig(task=[told(1)], num_agents=1).load().debate()
    debate.reset(Question("q", "?", "1", private=("a\ud800b",)))
    assert "a\ufffdb" in debate.observation("agent_0")


def test_order_of_agents_changes_nothing_but_who_is_told_what() -> None:
    """With the private texts swapped, the agents' first observations are swapped."""
    swapped = replace(told(2), private=told(2).private[::-1])
    both = []
    for question in (told(2), swapped):
        for protocol in (SimultaneousDebate(), JointAnswer()):
            env = debate_v0.parallel_env(task=[question], num_agents=2, protocol=protocol)
            both.append(env.reset(seed=0)[0])
    for one, other in zip(both[:2], both[2:], strict=True):
        assert (one["agent_0"], one["agent_1"]) == (other["agent_1"], other["agent_0"])


def test_own_files_have_the_same_keys(tmp_path: Any) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(told(2).to_dict()) + "\n" + json.dumps({"prompt": "x", "answer": 1}))
    first, second = load_task(file).split("train")
    assert first == told(2)
    assert (second.private, second.hidden) == ((), "")
    table = tmp_path / "table.csv"
    table.write_text('Prompt,answer,private,hidden\nx,1,"[""a"", """"]",ref\ny,2,,\n')
    first, second = load_task(table).split("train")
    assert (first.private, first.hidden) == (("a", ""), "ref")
    assert (second.private, second.hidden) == ((), "")


@pytest.mark.parametrize(
    "row", [{"private": "a"}, {"private": ["a", 1]}, {"private": {"a": "b"}}, {"hidden": 3}]
)
def test_a_wrong_column_is_told_with_its_place(tmp_path: Any, row: dict[str, Any]) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"prompt": "x", "answer": "1", **row}))
    with pytest.raises(ValueError, match=r"train.jsonl, line 1: (private|hidden) must be") as error:
        load_task(file)
    assert "\n" not in str(error.value)


def test_rows_of_trl_carry_the_reference_to_the_verifier() -> None:
    def verifier(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
        return [float(q.hidden == HIDDEN) for q in questions]

    [row, bare] = trl.rows([told(2), Question("q", "?", "1")], agent=1)
    assert row["prompt"][-1]["content"].endswith(mark(1))
    assert (row["hidden"], bare["hidden"]) == (HIDDEN, "")
    assert "hidden" not in trl.rows([Question("q", "?", "1")])[0]
    columns = {name: [row[name], bare[name]] for name in row if name != "prompt"}
    reward = trl.reward_function(verifier)
    assert reward([row["prompt"], bare["prompt"]], ["a", "b"], **columns) == [1.0, 0.0]
    with pytest.raises(ValueError, match="'told' has private texts for 2 agents, and none for 2"):
        trl.rows([told(2)], agent=2)
