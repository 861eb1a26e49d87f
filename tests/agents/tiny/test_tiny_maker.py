"""The model `tiny-maker`: it knows the words of its tasks, and is right now and then."""

from __future__ import annotations

import random

import pytest

from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.play.rollout import play
from maporl_agents.text.chat import Chat
from maporl_agents.tiny import maker_data
from maporl_agents.tiny.tokenizer import make_tokenizer
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_env.tasks import expressions, routes

TASKS = ("expressions", "routes")


@pytest.mark.parametrize("task", TASKS)
def test_it_knows_every_word_of_its_tasks(task: str) -> None:
    tokenizer = make_tokenizer("tiny-maker")
    debates = debates_of(GameConfig(task=task, num_agents=2, num_turns=2), 50)
    asked = questions_of(GameConfig(task=task), "test")[:50]
    debates.reset(asked)
    while prompts := debates.prompts():
        for prompt in prompts:
            assert tokenizer.unk_token_id not in tokenizer(prompt.text)["input_ids"], prompt.text
        debates.step([f"\\boxed{{ {asked[prompt.debate].answer} }}" for prompt in prompts])


def test_its_authors_pass_the_shown_tests_and_end_at_the_goal() -> None:
    rng = random.Random(0)
    for task, write, known in (
        ("expressions", maker_data.program, expressions.ShownTests()),
        ("routes", maker_data.plan, routes.EndsAtGoal()),
    ):
        asked = questions_of(GameConfig(task=task), "train")[:200]
        texts = [write(question, rng) for question in asked]
        assert set(known.score(asked, texts)) == {1.0}
        right = debates_of(GameConfig(task=task), 1).game.scorer.score(asked, texts)
        assert 0.3 < sum(filter(None, right)) / len(right) < 1


def test_rows_end_with_the_author_and_take_loss_on_it() -> None:
    chat = Chat(make_tokenizer("tiny-maker"))
    draw = maker_data.reader(chat, one_turn_share=0.3, drill_share=0.3)
    rng = random.Random(1)
    rows = [draw(rng, False) for _ in range(30)]
    assert {row.kind for row in rows} == {"one turn", "drill", "three turns"}
    for row in rows:
        assert row.ids[-1] == row.labels[-1] == chat.tokenizer.eos_token_id
        assert len(row.ids) == len(row.labels)


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_model_is_right_now_and_then(task: str) -> None:
    team = make_team(
        TeamConfig(model=("tiny-maker",), device="cpu"), num_agents=2, num_turns=1, seed=0
    )
    game = GameConfig(task=task, num_turns=1)
    asked = questions_of(game, "validation")[:80]
    rollouts = play(team, debates_of(game, 80), asked, Sampling(), seed=0)
    scores = [message.score for r in rollouts for message in r.transcript.messages]
    assert 0.02 < sum(filter(None, scores)) / len(scores) < 0.95
