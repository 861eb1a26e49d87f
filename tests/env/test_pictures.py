"""The debate as a picture: shape, contents, hostile text, and a missing Pillow."""

from __future__ import annotations

import sys
import time
from typing import Any

import gymnasium
import numpy as np
import pytest

from maporl_env import debate_v0
from maporl_env.types import Message, Question, Transcript

pytest.importorskip("PIL")

from maporl_env.rendering import pictures
from maporl_env.rendering.pictures import RIGHT, UNSCORED, WRONG, picture

EVIL = "\x1b[2J\x9b31m\u202eabc\u2066\x07\x00\r\u2028[red]<b>\tx"
CELLS = 2


def make_transcript(texts: list[str], scores: list[float | None]) -> Transcript:
    agents = tuple(f"agent_{seat}" for seat in range(CELLS))
    messages = tuple(
        Message(index // CELLS, agents[index % CELLS], text, score)
        for index, (text, score) in enumerate(zip(texts, scores, strict=True))
    )
    return Transcript(Question("q", "What is 2 + 2?", "4"), agents, messages)


def count(image: Any, color: tuple[int, int, int]) -> int:
    return int((image == np.array(color, np.uint8)).all(axis=2).sum())


@pytest.mark.parametrize("make", [debate_v0.env, debate_v0.parallel_env])
def test_all_pictures_of_a_debate_have_one_size_and_differ(make: Any) -> None:
    env = make(num_agents=2, num_turns=5, render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    while env.agents:
        if make is debate_v0.env:
            env.step(None if env.terminations[env.agent_selection] else f"{len(frames)}")
        else:
            env.step({agent: f"message {len(frames)}" for agent in env.agents})
        frames.append(env.render())
    assert {(frame.shape, frame.dtype) for frame in frames} == {(frames[0].shape, np.dtype("u1"))}
    assert frames[0].ndim == 3
    assert frames[0].shape[2] == 3
    assert len({frame.tobytes() for frame in frames}) == 1 + 5


def test_the_single_learner_has_pictures_too() -> None:
    env = gymnasium.make("maporl/Debate-v0", render_mode="rgb_array", num_turns=1)
    env.reset(seed=0)
    before = env.render()
    env.step("words")
    assert (env.render() != before).any()  # type: ignore[operator]


def test_the_colour_of_a_bar_is_the_score() -> None:
    image = picture(make_transcript(["a", "b", "c", "d"], [1.0, 0.0, None, 1.0]), 2)
    bar = count(image, WRONG)
    assert bar > 1_000
    assert count(image, UNSCORED) == pytest.approx(bar, rel=0.1)
    assert count(image, RIGHT) == pytest.approx(2 * bar, rel=0.1)


def test_the_newest_turns_are_shown() -> None:
    texts = [f"message {n}" for n in range(10)]
    image = picture(make_transcript(texts, [1.0] * 10), 5)
    assert (picture(make_transcript([*texts[:8], "x", "y"], [1.0] * 10), 5) != image).any()
    older = [f"other {n}" for n in range(4)]
    assert (picture(make_transcript([*older, *texts[4:]], [1.0] * 10), 5) == image).all()


@pytest.mark.parametrize(
    "text",
    ["", "   ", EVIL, "\ud800", "漢字 \U0001f469\u200d\U0001f680 שלום", "x" * 10**6, "a\n" * 99],
)
def test_any_text_is_drawn_inside_the_picture_and_in_time(text: str) -> None:
    empty = picture(make_transcript(["", ""], [0.5, 0.5]), 1)
    start = time.process_time()
    image = picture(make_transcript([text, ""], [0.5, 0.5]), 1)
    assert time.process_time() - start < 2
    assert image.shape == empty.shape
    half = image.shape[1] // 2 + pictures.MARGIN  # the neighbour's cell is untouched
    assert (image[:, half:] == empty[:, half:]).all()


def test_what_would_reorder_or_hide_text_is_spelled_out() -> None:
    lines = pictures._wrap(EVIL, 2_000, 8)
    assert "".join(lines).isascii()
    assert "\\x1b[2J" in lines[0]
    assert "\\u202e" in lines[0]
    assert "[red]<b>" in lines[0]


def test_long_messages_show_their_beginning_and_their_last_line() -> None:
    lines = pictures._wrap("first\n" + "middle\n" * 50 + "A: 34\n", 300, 8)
    assert lines == ["first", *["middle"] * 5, "...", "A: 34"]
    assert pictures._wrap("one two three", 60, 1)[0].endswith("...")


def test_without_pillow_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'maporl\[render\]'"):
        debate_v0.env(render_mode="rgb_array")
    debate_v0.env(render_mode="ansi")
