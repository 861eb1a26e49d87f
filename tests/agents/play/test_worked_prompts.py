"""Worked examples in the prompts of language models: plain and chat, and the window check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.play.window_check import full_length, too_long, unscored, why_too_long
from maporl_agents.text.chat import Chat
from maporl_agents.training.make_game import debate_config, make_game
from maporl_env.batched import BatchedDebate
from maporl_env.types import Question

GAME = GameConfig(task="shopping", num_agents=2, num_turns=2, shots=2)
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_the_ids_of_a_plain_prompt_are_those_of_examples_and_question():
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=2, seed=0)
    chat = team.bases[0].chat
    debates = make_game(GAME).debates(1)
    debates.reset(debates.game.task.split("test")[:1])
    prompt = debates.prompts()[0]
    text = chat.decode(chat.prompt_ids(prompt.view))
    assert text.count("\\boxed{") == 2 + 3
    assert text.split() == prompt.text.split()


def test_examples_open_the_first_user_message_of_a_chat():
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=2, seed=0)
    tokenizer = team.bases[0].chat.tokenizer
    tokenizer.chat_template = CHATML
    with pytest.warns(UserWarning, match="plain words"):
        chat = Chat(tokenizer)
    debates = make_game(replace(GAME, personas=("mug", "net"))).debates(1)
    debates.reset(debates.game.task.split("test")[:1])
    [system, user] = debates.prompts()[0].view
    assert system[0] == "system"
    assert user[1].count("buys") == 3
    assert chat.decode(chat.prompt_ids((system, user))).count("buys") == 3


@pytest.mark.thorough
@pytest.mark.parametrize("shots", [0, 3, 9])
def test_the_window_check_counts_the_examples(shots):
    team = make_team(TeamConfig(tuning="none"), num_agents=2, num_turns=3, seed=0)
    game = replace(GAME, num_turns=3, shots=shots)
    config = debate_config(game)
    example = config.load().examples.questions[0] if shots else Question("x", "pen", "1")
    asked = [Question(f"q{n}", " ".join(["pen"] * n), "1") for n in range(0, 150, 10)] + [example]
    sampling = Sampling(max_new_tokens=32)
    debates = BatchedDebate(unscored(config), 1)
    speak = full_length(team)
    by_playing = {
        place
        for place, one in enumerate(asked)
        if why_too_long(team, debates, sampling, one, speak)
    }
    assert too_long(team, config, sampling, asked).keys() == by_playing
    assert (2 in by_playing) == (shots == 9)
