"""PPO in one file: it is short, needs nothing of our trainer, reads fairly, and learns."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra train")

import torch

from maporl_env.batched import BatchedDebate, DebateConfig

EXAMPLE = Path(__file__).parents[2] / "examples" / "ppo_single_file.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("ppo_single_file", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ppo_single_file"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_it_is_one_short_file_without_our_trainer() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    assert "maporl_agents" not in text


def test_an_agent_reads_its_own_answer_first_and_no_blotted_digit(example: Any) -> None:
    debates = BatchedDebate(DebateConfig(task=example.questions(), num_agents=2, num_turns=2), 1)
    debates.reset([example.questions()[3 * example.DIGITS + 4]])
    blots = np.array([False, True])
    read = [example.read(prompt, blots) for prompt in debates.prompts()]
    assert read == [[3, example.BLOT, example.PADDING, example.PADDING]] * 2
    debates.step([r"\boxed{7}", r"\boxed{5}"])
    read = [example.read(prompt, ~blots) for prompt in debates.prompts()]
    assert read == [[example.BLOT, 4, 7, 5], [example.BLOT, 4, 5, 7]]


def test_a_first_update_starts_at_ratio_one(example: Any) -> None:
    """All answers are as likely at first: the loss is critic / 2 - entropy / 100, mean(A) is 0."""
    settings, questions = example.Settings(), example.questions()
    network = example.new_network(0)
    debates = BatchedDebate(DebateConfig(task=questions, num_agents=2, num_turns=2), 25)
    batch, right = example.play(network, debates, questions, 0.0, seed=0)
    assert right.shape == (25, 2, 2)
    advantages, returns = example.advantages_of(batch)
    for turn in range(2):
        part = advantages[batch.turns == turn]
        assert float(part.mean()) == pytest.approx(0, abs=1e-6)
        assert float(part.std()) == pytest.approx(1, abs=1e-5)
    rows = torch.arange(len(batch.said))
    loss = example.loss_of(network, batch, rows, advantages, returns, settings)
    expected = returns.square().mean() / 2 - 0.01 * np.log(9)  # values are 0, answers uniform
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.slow
def test_it_learns_to_add_and_to_trust_the_other(example: Any) -> None:
    """Guessing is right in 1 of 9; both digits are read in 9 of 16, no more; turn 2 tells more."""
    history = example.train(example.Settings(steps=50))
    first, second = np.mean(history[-10:], axis=0)
    assert np.mean(history[0]) < 0.25
    assert first > 0.5
    assert second > first + 0.08
