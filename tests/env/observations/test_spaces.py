"""The text space and its string."""

from __future__ import annotations

import copy
import json
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.error import CustomSpaceError
from gymnasium.vector.utils import create_shared_memory
from hypothesis import given
from hypothesis import strategies as st

from maporl_env.observations.spaces import SAMPLE_LENGTH, DebateSpace, DebateText

from ..official import check_output_in_other_processes


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_contains_every_text_up_to_its_length(text: str) -> None:
    assert text in DebateSpace(20)
    assert (text in DebateSpace(5)) == (len(text) <= 5)


@pytest.mark.parametrize("value", [None, 3, b"bytes", ["text"], 1.5])
def test_contains_nothing_but_text(value: object) -> None:
    assert not DebateSpace().contains(value)


def test_samples_are_members_and_repeat_under_a_seed() -> None:
    first, second = DebateSpace(10, seed=7), DebateSpace(10, seed=7)
    drawn = [first.sample() for _ in range(50)]
    assert drawn == [second.sample() for _ in range(50)]
    assert all(text in first for text in drawn)
    assert {len(text) for text in drawn} >= {0, 10}
    assert max(len(DebateSpace(seed=0).sample()) for _ in range(20)) <= SAMPLE_LENGTH


def test_samples_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from maporl_env.observations.spaces import DebateSpace; "
        "print(ascii(DebateSpace(seed=3).sample()))"
    )
    assert check_output_in_other_processes(code) != ""


def test_masks_and_probabilities_are_obeyed() -> None:
    only_a = np.zeros(100, np.int8)
    space = DebateSpace(9, seed=0)
    only_a[list(space.character_list).index("a")] = 1
    assert space.sample(mask=(4, only_a)) == "aaaa"
    assert set(space.sample(mask=(None, only_a))) <= {"a"}
    assert space.sample(probability=(3, only_a.astype(np.float64))) == "aaa"


def test_equality_is_by_kind_and_length() -> None:
    assert DebateSpace(5) == DebateSpace(5)
    assert DebateSpace(5) != DebateSpace(6)
    assert DebateSpace(5) != gymnasium.spaces.Text(
        5, min_length=0, charset=DebateSpace(5).characters
    )


def test_space_is_small_to_print_and_to_pickle() -> None:
    assert repr(DebateSpace(5)) == "DebateSpace(5)"
    assert len(pickle.dumps(DebateSpace())) < 20_000
    assert (
        pickle.loads(pickle.dumps(DebateSpace(5)))
        == DebateSpace(5)
        == copy.deepcopy(DebateSpace(5))
    )


def test_shared_memory_is_refused() -> None:
    with pytest.raises(CustomSpaceError, match="shared_memory=False"):
        create_shared_memory(DebateSpace(5), 2)


def test_debate_text_is_a_string_with_a_dtype() -> None:
    text = DebateText("héllo")
    assert text.dtype == DebateSpace().dtype
    assert json.loads(json.dumps(text)) == text == pickle.loads(pickle.dumps(text))
    assert type(copy.deepcopy(text)) is DebateText
    assert type(text + "!") is str
