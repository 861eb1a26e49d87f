"""Debates in token ids: official tests, ids, masks, and the same rewards as in text."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo.test import (
    api_test,
    max_cycles_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec

from maporl_env import debate_v0
from maporl_env.bridges.tokens import TokenDebate
from maporl_env.observations.tokens import ByteTokenizer, TokenCodec
from maporl_env.types import Question

FEW = [Question(f"few/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(5)]
PINNED = {"question": Question("q", "What is 2 + 2?", "4")}
END = 257
SMALL: dict[str, Any] = {"observation": "tokens", "observation_tokens": 700, "message_tokens": 5}
BOX: dict[str, Any] = {**SMALL, "task": FEW}
WRITING: dict[str, Any] = {**BOX, "action": "token"}
SETTINGS: list[dict[str, Any]] = [
    BOX,
    {**BOX, "obs_dtype": "float32", "num_agents": 2, "stop": "consensus"},
    {**BOX, "num_agents": 1, "num_turns": 1},
    WRITING,
    {**WRITING, "obs_dtype": "float32", "num_agents": 2, "reward_mode": "score"},
    {**WRITING, "num_agents": 1, "num_turns": 1},
]
SEQUENTIAL: list[dict[str, Any]] = [
    {**BOX, "protocol": "sequential"},
    {**WRITING, "protocol": "sequential"},
    {**WRITING, "protocol": "pipeline"},
]


def converted(**options: Any) -> Any:
    return aec_to_parallel(debate_v0.env(**options))


def converted_back(**options: Any) -> Any:
    return parallel_to_aec(debate_v0.parallel_env(**options))


def twice_converted(**options: Any) -> Any:
    return aec_to_parallel(converted_back(**options))


def ids(text: str) -> list[int]:
    """A message as env ids, its end included."""
    return [byte + 1 for byte in text.encode()] + [END]


def read(observation: Any) -> str:
    """The text of an observation, without its padding."""
    return bytes(int(id_) - 1 for id_ in observation if id_).decode(errors="replace")


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- the official tests, without a single warning. `bombardment_test` takes the None of step() for
# -- an observation and cannot pass anywhere; `test_save_obs` is for pictures; `manual_control_test`
# -- for keyboards.


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.raw_env, converted_back])
@pytest.mark.parametrize("options", SETTINGS)
def test_api(make: Callable[..., Any], options: dict[str, Any]) -> None:
    api_test(make(**options), num_cycles=30)


@pytest.mark.parametrize("options", SEQUENTIAL)
def test_api_of_sequential_protocols(options: dict[str, Any]) -> None:
    api_test(debate_v0.env(**options), num_cycles=30)
    seed_test(lambda: debate_v0.env(**options), num_cycles=10)


@pytest.mark.parametrize("make", [debate_v0.parallel_env, converted, twice_converted])
@pytest.mark.parametrize("options", SETTINGS)
def test_parallel_api(make: Callable[..., Any], options: dict[str, Any]) -> None:
    parallel_api_test(make(**options), num_cycles=30)


@pytest.mark.parametrize("aec", [debate_v0.env, converted_back])
@pytest.mark.parametrize("parallel", [debate_v0.parallel_env, converted])
@pytest.mark.parametrize("options", SETTINGS)
def test_official_seed_and_state(
    aec: Callable[..., Any], parallel: Callable[..., Any], options: dict[str, Any]
) -> None:
    seed_test(lambda: aec(**options), num_cycles=10)
    parallel_seed_test(lambda: parallel(**options), num_cycles=10)
    state_test(aec(**options), parallel(**options))


# A cycle is a turn where a message is one action: whole messages, or messages of one token.
@pytest.mark.parametrize("options", [BOX, {**WRITING, "message_tokens": 1}])
def test_official_max_cycles_and_render(
    options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.SimpleNamespace(
        env=lambda **more: debate_v0.env(**options, **more),
        parallel_env=lambda **more: debate_v0.parallel_env(**options, **more),
    )
    max_cycles_test(module)
    render_test(module.env)
    assert "Question few/" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{}, {"obs_dtype": "float32"}, {"protocol": "sequential"}])
def test_gymnasium_checks_the_token_view_without_a_warning(options: dict[str, Any]) -> None:
    sizes = {"observation_tokens": 700, "message_tokens": 5, "learner": 1, **options}
    writing = gymnasium.make("maporl/TokenDebate-v0", **sizes).unwrapped
    rows = gymnasium.make("maporl/Debate-v0", observation="tokens", **sizes).unwrapped
    assert isinstance(writing, TokenDebate)
    check_env(writing)
    with pytest.warns(UserWarning, match="symmetric and normalized space") as caught:
        check_env(rows)
    assert len(caught) == 1  # ids are no numbers around 0; nothing else is complained of


@pytest.mark.slow  # importing torch takes most of it
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_sb3_checks_the_token_view_without_a_warning(dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # what its imports warn of is not ours
        checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(TokenDebate(**SMALL, obs_dtype=dtype), warn=True)


# -- ids ----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_text_survives_its_ids_and_no_id_is_padding(text: str) -> None:
    codec = TokenCodec(observation_tokens=300, message_tokens=300)
    encoded = codec.ids(text)
    assert encoded.tolist() == ids(text)[:-1]
    assert codec.text(encoded) == text
    assert codec.text(codec.padded(encoded)) == text
    assert codec.padded(encoded) in codec.observation_space()
    assert codec.count(text) == len(encoded)


@pytest.mark.parametrize(
    "stop", [0, END, END + 1, -1, 10**12, 1.5, float("nan"), float("inf"), -float("inf")]
)
def test_the_first_id_that_is_no_token_ends_a_message(stop: float) -> None:
    dtype = np.float64 if isinstance(stop, float) else np.int64
    row = np.array([*ids("ab")[:-1], stop, *ids("c")], dtype)
    assert TokenCodec().text(row) == "ab"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert TokenCodec().text(np.array([256, 66])) == "\ufffdA"


class Words:
    """A tokenizer of somebody else: one id per word, 0 for unknown ones, and an end of its own."""

    WORDS = ("?", "yes", "no", "</s>")
    vocab_size = 4
    eos_token_id = 3

    def encode(self, text: str) -> list[int]:
        return [self.WORDS.index(word) if word in self.WORDS else 0 for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.WORDS[id_] for id_ in ids)


@pytest.mark.parametrize("stop", [4, 5, 0, 6])  # its own end, ours, padding, out of range
def test_any_tokenizer_will_do(stop: int) -> None:
    env = debate_v0.parallel_env(FEW, **SMALL, tokenizer=Words(), num_agents=2)
    observations, _ = env.reset(seed=0)
    assert env.action_space("agent_0") == Box(0, 5, (5,), np.int64)
    assert set(observations["agent_0"]) == {0, 1}  # padding, and words it does not know
    env.step({"agent_0": [2, 3, stop, 2, 2], "agent_1": []})
    assert [message.text for message in env.transcript.messages] == ["yes no", ""]


def test_a_tokenizer_that_miscounts_its_ids_is_found_out() -> None:
    class Wrong(Words):
        vocab_size = 1
        WORDS = ("?", "What")

    with pytest.raises(ValueError, match=r"ids from 0 to 1, but its vocab_size is 1"):
        TokenCodec(Wrong()).ids("What ?")


def test_a_tokenizer_with_more_ids_than_it_counts_is_refused_before_a_message_spells_one() -> None:
    class Added(Words):
        def __len__(self) -> int:
            return 6

    with pytest.raises(ValueError, match="has 6 ids, but its vocab_size is 4: wrap it"):
        debate_v0.env(FEW, **SMALL, tokenizer=Added())


# -- the spaces ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_the_spaces_and_what_is_in_them(dtype: str) -> None:
    box = debate_v0.parallel_env(**BOX, obs_dtype=dtype)
    writing = debate_v0.parallel_env(**WRITING, obs_dtype=dtype)
    assert box.action_space("agent_0") == Box(0, END, (5,), np.int64)
    assert writing.action_space("agent_0") == Discrete(END + 1)
    for env in (box, writing):
        space = env.observation_space("agent_0")
        assert space == Box(0, END, (700,), np.dtype(dtype).type)
        observations, _ = env.reset(seed=0)
        while env.agents:
            assert all(observation in space for observation in observations.values())
            assert all(observation.any() for observation in observations.values())
            assert env.state() in env.state_space
            observations, *_ = env.step({a: env.action_space(a).sample() for a in env.agents})
        assert env.state() in env.state_space


def test_the_observation_is_the_text_in_ids() -> None:
    text, tokens = debate_v0.env(FEW), debate_v0.env(FEW, observation="tokens")
    for env in (text, tokens):
        env.reset(seed=3)
    for said in ("one", "two", "drei \U0001f600", "four"):
        agent = text.agent_selection
        assert read(tokens.observe(agent)) == text.observe(agent)
        assert bytes((tokens.state()[tokens.state() > 0] - 1).astype(np.uint8)).decode() == (
            text.unwrapped.state_text()
        )
        text.step(said)
        tokens.step(ids(said))


def test_the_oldest_turns_are_dropped_and_the_question_never() -> None:
    env = debate_v0.parallel_env(
        observation="tokens", observation_tokens=400, message_tokens=60, num_turns=8
    )
    observations, _ = env.reset(options={"question": "What is 2 + 2?", "answer": "4"})
    for turn in range(7):
        observations, *_ = env.step(dict.fromkeys(env.agents, ids(f"In turn {turn} {'x' * 30}")))
    seen = read(observations["agent_0"])
    assert seen.startswith("What is 2 + 2?")
    assert "Earlier turns are left out" in seen
    assert "In turn 0" not in seen
    assert "In turn 6" in seen


def test_a_question_that_does_not_fit_is_refused() -> None:
    env = debate_v0.parallel_env(observation="tokens", observation_tokens=20)
    with pytest.raises(ValueError, match="the question alone takes"):
        env.reset(seed=0)


# -- one token at a time ------------------------------------------------------------------------


def mask_of(env: Any, agent: str) -> str:
    mask = env.infos[agent]["action_mask"]
    assert mask.dtype == np.int8
    assert mask.shape == (END + 1,)
    return {(0, 1): "write", (1, 0): "wait"}[int(mask[0]), int(mask[1:].all())]


def test_agents_write_together_and_wait_for_each_other() -> None:
    env = debate_v0.env(**WRITING, num_agents=2, num_turns=1)
    env.reset(options=PINNED)
    prompt = read(env.observe("agent_0"))
    for one, two in zip([*ids("ab"), 7], ids("xyz"), strict=True):
        env.step(one)
        assert env.unwrapped.debate.pending == ()
        env.step(two)
    assert [message.text for message in env.unwrapped.transcript.messages] == ["ab", "xyz"]
    assert all(env.terminations.values())

    env.reset(options=PINNED)
    env.step(ids("a")[0])
    assert read(env.observe("agent_0")) == prompt + "a"
    assert read(env.observe("agent_1")) == prompt  # the unfinished message is nobody else's
    assert env.unwrapped.state_text().endswith("agent_0: a")
    env.step(END)
    assert (mask_of(env, "agent_0"), mask_of(env, "agent_1")) == ("write", "wait")
    assert env.unwrapped.state_text().endswith("agent_0: a\nagent_1: ")


def test_a_message_ends_at_its_longest() -> None:
    env = debate_v0.parallel_env(**WRITING, num_agents=1, num_turns=1)
    env.reset(options=PINNED)
    for _ in range(5):
        assert env.agents
        env.step({"agent_0": ids("x")[0]})
    assert env.agents == []
    assert env.transcript.messages[0].text == "xxxxx"


@pytest.mark.parametrize("stop", [END, 0, END + 5, -3, np.int64(END), np.array(0)])
def test_an_illegal_id_ends_the_message_and_is_padding_after_that(stop: Any) -> None:
    env = debate_v0.parallel_env(**WRITING, num_agents=2, num_turns=1)
    env.reset(options=PINNED)
    env.step({"agent_0": stop, "agent_1": ids("x")[0]})
    assert env.agents
    env.step({"agent_0": 66, "agent_1": stop})
    assert [message.text for message in env.transcript.messages] == ["", "x"]


def test_writers_of_a_sequential_protocol_take_turns() -> None:
    env = debate_v0.env(**WRITING, num_agents=2, num_turns=1, protocol="sequential")
    env.reset(options=PINNED)
    for id_ in ids("ab"):
        assert env.agent_selection == "agent_0"
        assert (mask_of(env, "agent_0"), mask_of(env, "agent_1")) == ("write", "wait")
        env.step(id_)
    assert env.agent_selection == "agent_1"
    assert (mask_of(env, "agent_0"), mask_of(env, "agent_1")) == ("wait", "write")
    assert "ab" in read(env.observe("agent_1"))
    env.step(END)
    assert [mask_of(env, agent) for agent in env.agents] == ["wait", "wait"]


def test_masks_are_in_the_infos_of_single_tokens_only() -> None:
    for options in SETTINGS:
        env = debate_v0.parallel_env(**options)
        observations, infos = env.reset(seed=0)
        assert ("action_mask" in infos["agent_0"]) == (options.get("action") == "token")
        assert isinstance(observations["agent_0"], np.ndarray)


def test_a_reset_or_truncation_forgets_what_was_being_written() -> None:
    env = debate_v0.parallel_env(**WRITING, num_agents=2)
    first, _ = env.reset(options=PINNED)
    env.step({"agent_0": 66, "agent_1": END})
    again, infos = env.reset(options=PINNED)
    assert (first["agent_0"] == again["agent_0"]).all()
    assert infos["agent_1"]["action_mask"][END] == 1
    env.step({"agent_0": 66, "agent_1": END})
    _, rewards, _, truncations, _ = env.truncate("too slow")
    assert all(truncations.values())
    assert rewards == {"agent_0": 0, "agent_1": 0}
    assert env.transcript.messages == ()
    assert env.state_text() == PINNED["question"].prompt


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_in_the_middle_of_a_message_continue_alike(duplicate: Callable[[Any], Any]) -> None:
    env = debate_v0.parallel_env(**WRITING, num_turns=1)
    env.reset(seed=0)
    env.step({"agent_0": 66, "agent_1": END, "agent_2": 67})
    twin = duplicate(env)
    for one in (env, twin):
        one.step({"agent_0": 68, "agent_1": 0, "agent_2": END})
        one.step({"agent_0": END, "agent_1": 0, "agent_2": 0})
    assert env.transcript == twin.transcript
    assert [message.text for message in twin.transcript.messages] == ["AC", "", "B"]


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"action": "token"}, "needs observation='tokens'"),
        ({"observation": "tokens", "action": "word"}, "message, token"),
        ({"observation": "tokens", "on_long": "error"}, "message_tokens limits"),
        ({"observation": "tokens", "obs_dtype": "float64"}, "int64, float32"),
        ({"observation": "tokens", "tokenizer": "gpt2"}, "must have encode"),
        ({"observation": "tokens", "message_tokens": 0}, "message_tokens must be an integer >= 1"),
        ({**WRITING, "observation_tokens": 5}, "must be more than message_tokens=5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        debate_v0.env(**options)


@pytest.mark.parametrize(
    ("options", "action"),
    [
        (BOX, None),
        (BOX, "text"),
        (BOX, 3),
        (BOX, [[1, 2]]),
        (BOX, [1] * 6),
        (BOX, ["a"]),
        (BOX, [True]),
        (WRITING, None),
        (WRITING, "a"),
        (WRITING, [1]),
        (WRITING, 1.0),
        (WRITING, True),
    ],
)
def test_a_wrong_action_changes_nothing(options: dict[str, Any], action: Any) -> None:
    good = [66] if options is BOX else 66
    aec, parallel = debate_v0.env(**options), debate_v0.parallel_env(**options)
    aec.reset(seed=0)
    aec.step(good)
    parallel.reset(seed=0)
    before = pickle.dumps(aec.unwrapped), pickle.dumps(parallel)
    with pytest.raises(ValueError, match=r"agent_1 must be"):
        aec.step(action)
    with pytest.raises(ValueError, match=r"agent_1 must be"):
        parallel.step({"agent_0": good, "agent_1": action, "agent_2": good})
    assert (pickle.dumps(aec.unwrapped), pickle.dumps(parallel)) == before


# -- the same game ------------------------------------------------------------------------------

SAYS = ("\\boxed{4}", "\\boxed{5}", "so \\boxed{4}", "", "no")


def by_text(script: list[list[str]], **options: Any) -> Any:
    env = debate_v0.parallel_env(**options)
    env.reset(options=PINNED)
    paid, turns = np.zeros(3), iter(script)
    while env.agents:
        paid += list(env.step(dict(zip(env.agents, next(turns), strict=True)))[1].values())
    return env.transcript, paid.tolist()


def by_rows(script: list[list[str]], **options: Any) -> Any:
    env = debate_v0.env(observation="tokens", **options)
    env.reset(options=PINNED)
    paid = dict.fromkeys(env.agents, 0.0)
    for agent in env.agent_iter():
        _, reward, terminated, *_ = env.last()
        paid[agent] += reward
        turn = env.unwrapped.debate.played
        env.step(None if terminated else ids(script[turn][int(agent[-1])]))
    return env.unwrapped.transcript, list(paid.values())


def by_writing(make: Callable[..., Any], script: list[list[str]], **options: Any) -> Any:
    env = make(observation="tokens", action="token", message_tokens=20, **options)
    debate = env.unwrapped.debate if hasattr(env, "unwrapped") else env.debate
    env.reset(options=PINNED)
    paid, at, turn = np.zeros(3), 0, 0
    while env.agents:
        if debate.played != turn:
            turn, at = debate.played, 0
        rows = [ids(text) for text in script[turn]]
        actions = {
            a: row[at] if at < len(row) else 0 for a, row in zip(env.agents, rows, strict=True)
        }
        paid += list(env.step(actions)[1].values())
        at += 1
    return debate.transcript, paid.tolist()


def by_one_learner(script: list[list[str]], learner: int, **options: Any) -> Any:
    partners = [[turn[seat] for turn in script] for seat in range(3) if seat != learner]
    env = TokenDebate(partners, learner, message_tokens=20, **options)
    _, info = env.reset(options=PINNED)
    paid, done = 0.0, False
    while not done:
        for id_ in ids(script[env.core.debate.played][learner]):
            assert (env.action_masks() == info["action_mask"]).all()
            assert env.action_masks()[id_]
            _, reward, done, _, info = env.step(id_)
            paid += reward
    return env.core.transcript, paid


@pytest.mark.parametrize("options", [{}, {"stop": "consensus", "reward_mode": "score"}])
def test_text_rows_and_single_ids_play_the_same_debate(options: dict[str, Any]) -> None:
    script = [list(SAYS[:3]), [SAYS[0], SAYS[2], SAYS[4]], list(SAYS[1:4])]
    transcript, paid = by_text(script, **options)
    assert by_rows(script, **options) == (transcript, paid)
    assert by_writing(debate_v0.parallel_env, script, **options) == (transcript, paid)
    assert by_writing(converted, script, **options) == (transcript, paid)
    for learner in range(3):
        assert by_one_learner(script, learner, **options) == (transcript, paid[learner])
    assert max(paid) > 0


def test_the_token_view_takes_no_other_action() -> None:
    with pytest.raises(ValueError, match="use SingleAgentDebate"):
        TokenDebate(action="message")


def test_made_by_name() -> None:
    env = pettingzoo.make("parallel", "maporl/debate-v0", observation="tokens", action="token")
    assert isinstance(env.action_space("agent_0"), Discrete)


# -- seeds --------------------------------------------------------------------------------------

WHOLE_EPISODES = """
import json
from maporl_env import debate_v0
from maporl_env.bridges.vector import VectorDebate

def show(told):
    print(json.dumps(told, default=lambda array: array.tolist()))

small = dict(observation="tokens", observation_tokens=2000, message_tokens=5)
for options in ({}, small, {**small, "action": "token"}):
    env = debate_v0.parallel_env(**options)
    for place, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(place)
    for seed in (5, None, None):
        show(env.reset(seed=seed))
        while env.agents:
            told = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
            show((told, env.state()))
        show(env.transcript.to_dict())
envs = VectorDebate(6, learner="all", stop="consensus")
show(envs.reset(seed=3))
for turn in range(6):
    show(envs.step([f"\\\\boxed{{{lane // 5}}}" for lane in range(6)]))
"""


def test_whole_episodes_repeat_in_other_processes_with_other_hash_seeds() -> None:
    path = ":".join(p for p in sys.path if p)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", WHOLE_EPISODES],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) > 50


def test_the_byte_tokenizer_has_one_id_per_byte() -> None:
    assert list(ByteTokenizer().encode("aé")) == [97, 195, 169]
    assert ByteTokenizer().decode([97, 195, 169]) == "aé"
    assert ByteTokenizer().vocab_size == 256
