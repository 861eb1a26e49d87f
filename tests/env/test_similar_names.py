"""Names are suggested where they are alike, and nowhere else."""

from __future__ import annotations

import pytest

from maporl_env.similar_names import alike, did_you_mean, hint

OPTIONS = ("steps", "game.verifier-timeout", "ppo.clip-coef", "runs", "scheme", "high")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("stps", "steps"),
        ("Steps", "steps"),
        ("run", "runs"),
        ("shceme", "scheme"),
        ("schemes", "scheme"),
        ("hi", "high"),
        ("ppo.clip", "ppo.clip-coef"),
        ("step_size", ""),
        ("out", ""),
        ("timer", ""),
        ("x", ""),
        ("h", ""),
        ("ppo.kl", ""),
    ],
)
def test_only_what_is_alike_is_suggested(wrong: str, near: str) -> None:
    assert alike(wrong, OPTIONS) == ([near] if near else [])
    assert did_you_mean(wrong, OPTIONS) == (f"did you mean {near!r}?" if near else "")


def test_the_most_similar_comes_first_and_each_once() -> None:
    assert alike("model", ["models", "mode", "modell", "other"], most=3)[-1] == "mode"
    assert len(alike("model", ["models", "mode", "modell", "other"], most=9)) == 3


def test_all_are_listed_where_none_is_alike() -> None:
    assert hint("out", ["steps", "runs"]) == "choose one of steps, runs"
    assert alike(3, []) == []
