"""Token ids: encoding, tokenizers, spaces, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import strategies as st

from maporl_env import debate_v0
from maporl_env.observations.tokens import ByteTokenizer, TokenCodec

from .token_debates import BOX, END, FEW, SMALL, WRITING, ids, read

pytestmark = pytest.mark.usefixtures("warnings_are_errors")


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


def test_the_byte_tokenizer_has_one_id_per_byte() -> None:
    assert list(ByteTokenizer().encode("aé")) == [97, 195, 169]
    assert ByteTokenizer().decode([97, 195, 169]) == "aé"
    assert ByteTokenizer().vocab_size == 256
