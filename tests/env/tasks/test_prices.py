"""Task `prices`: nobody can answer without asking the user."""

from __future__ import annotations

from collections import Counter

import pytest

from maporl_env.bridges import speakers
from maporl_env.tasks import load_task
from maporl_env.tasks.dialogues import prices

TASK = load_task("prices")


def test_an_item_is_in_one_split_and_has_every_price() -> None:
    items = {name: {q.prompt.split()[0] for q in split} for name, split in TASK.splits.items()}
    assert {name: len(part) for name, part in items.items()} == {
        "test": 16,
        "validation": 8,
        "train": 40,
    }
    assert len(set().union(*items.values())) == 64
    for split in TASK.splits.values():
        for item in {q.prompt for q in split}:
            told = Counter(int(q.answer) for q in split if q.prompt == item)
            assert told == Counter(prices.PRICES)


def test_the_price_is_hidden() -> None:
    for asked in TASK.split("test"):
        assert asked.hidden == asked.answer
        assert not any(word.isdigit() for word in asked.prompt.split())


@pytest.mark.parametrize(
    ("said", "reply"),
    [("how much ?", "7"), (" how  much ? ", "7"), ("how much", "."), (".", "."), ("", ".")],
)
def test_what_the_user_says(said: str, reply: str) -> None:
    view = (
        f"\nThe reference, which you alone know:\n```\n7\n```\n\nThe assistant:\n```\n{said}\n```\n"
    )
    assert prices.user([view]) == [reply]
    assert prices.user([""]) == [prices.NOTHING]


@pytest.mark.parametrize(("first", "score"), [(prices.ASK, 1.0), (prices.NOTHING, 0.0)])
def test_who_asks_is_told(first: str, score: float) -> None:
    def agent(views: list[str]) -> list[str]:
        told = views[0].count("7")
        return [f"\\boxed{{ {7 if told else 8} }}"] if "The user:" in views[0] else [first]

    batch = speakers.play(
        [agent, prices.user],
        [prices.question("pen", 7)],
        task="prices",
        protocol="dialogue",
        num_turns=2,
    )
    assert batch.transcripts[0].messages[-1].score == score
