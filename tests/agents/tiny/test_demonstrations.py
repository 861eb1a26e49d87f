"""Demonstrations of a form: right in form, and without a lesson about when it pays."""

from __future__ import annotations

from statistics import mean

import pytest

from maporl_agents.recipes import recipe
from maporl_agents.tiny import demonstrations
from maporl_agents.training import experiment
from maporl_agents.training.given_messages import rows_of
from maporl_agents.training.make_game import make_game
from maporl_env.tasks import load_task
from maporl_env.tasks.dialogues import prices


def test_dialogues_ask_half_of_the_time_and_are_right_where_they_ask() -> None:
    made = demonstrations.dialogues()
    asks = [one.messages[0].text == prices.ASK for one in made]
    scores = [one.messages[-1].score or 0.0 for one in made]
    assert mean(asks) == pytest.approx(1 / 2, abs=0.1)
    assert {score for asked, score in zip(asks, scores, strict=True) if asked} == {1.0}
    chance = mean(score for asked, score in zip(asks, scores, strict=True) if not asked)
    assert chance == pytest.approx(1 / 12, abs=0.08)


def test_a_choice_is_shown_whichever_is_right() -> None:
    """The retriever is right as often as those it chooses from."""
    made = demonstrations.retrievals()
    scores = [[message.score or 0.0 for message in one.messages] for one in made]
    assert mean(one[-1] for one in scores) == pytest.approx(
        mean(mean(one[:2]) for one in scores), abs=0.06
    )
    assert 0.1 < mean(one[-1] for one in scores) < 0.4


@pytest.mark.parametrize("name", ["dialogue", "retrieve"])
def test_a_recipe_reads_its_demonstrations_and_learns_one_agent(name: str) -> None:
    config = recipe(name)
    game = make_game(config.game)
    team, _ = experiment.build(config, game=game)
    rows, count = rows_of(team, game.debates(1), config.warmup.transcripts)
    assert count == demonstrations.COUNT
    assert {row.agent for row in rows} == set(config.team.train_agents)
    unknown = team.bases[0].chat.tokenizer.unk_token_id
    assert not any(unknown in row.completion.ids for row in rows)


def test_demonstrations_are_of_training_questions_and_the_same_every_time() -> None:
    made = demonstrations.dialogues()
    train = {question.id for question in load_task("prices").split("train")}
    assert {one.question.id for one in made} <= train
    assert made == demonstrations.dialogues()
