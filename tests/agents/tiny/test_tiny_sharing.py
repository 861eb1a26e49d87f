"""What `tiny-sharing` reads in its pre-training: format, neutrality, what loss is taken on."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from maporl_agents.text.chat import Chat
from maporl_agents.tiny import MODELS, checkpoint, sharing_data
from maporl_agents.tiny.pretrain import RECIPES, batches, reader
from maporl_agents.tiny.rows import NO_LOSS, Row
from maporl_agents.tiny.tokenizer import make_tokenizer
from maporl_env.answers import extract_answer
from maporl_env.protocols import SimultaneousDebate
from maporl_env.tasks import load_task, sharing
from maporl_env.types import Message, Question, Transcript

CHAT = Chat(make_tokenizer("tiny-sharing"))
RECIPE = RECIPES["tiny-sharing"]
QUESTION = Question(
    "sharing/4-7", "Mia has 4 coins and gets 7 , shared by 3 . how many left ?", "2"
)


def rows(count: int) -> list[Row]:
    draw, rng = reader(RECIPE, CHAT, 0), random.Random(5)
    return [draw(rng, False) for _ in range(count)]


@pytest.mark.parametrize("name", ["sharing", "coins"])
def test_the_tokenizer_knows_every_word_that_is_read_or_written(name: str) -> None:
    task = load_task(name)
    protocol = SimultaneousDebate(template=task.template, reward_feedback=True)
    for question in task.split("test")[:200]:
        history = Transcript(question, ("agent_0", "agent_1"))
        for turn, move in enumerate((None, *sharing.MOVES)):
            text = sharing.answer(int(question.answer), move, (0.5, 1.0))
            history = history.publish(Message(turn, agent, text, 0.0) for agent in history.agents)
        for role, text in protocol.view("agent_0", history):
            assert CHAT.tokenizer.unk_token_id not in CHAT.tokenizer(text)["input_ids"], (
                role,
                text,
            )


def test_rows_are_the_views_of_a_debate_and_loss_is_on_own_messages() -> None:
    for row in rows(200):
        assert len(row.ids) == len(row.labels)
        learnt = [label for label in row.labels if label != NO_LOSS]
        assert all(label in (NO_LOSS, i) for i, label in zip(row.ids, row.labels, strict=True))
        assert row.ids[-1] == learnt[-1] == CHAT.tokenizer.eos_token_id
        text = CHAT.tokenizer.decode(learnt)
        assert "agent" not in text
        assert "your" not in text
        ends = learnt.count(CHAT.tokenizer.eos_token_id)
        assert ends == (3 if row.kind == "debate" else 1)
        if row.kind.startswith("drill"):
            assert len(learnt) == sharing_data.COPY_TOKENS
            number = text.split()[0]
            assert text == f"{number} \\boxed{{ {number} }} <eos>"


def test_prompts_of_the_rows_are_those_of_the_chat_border() -> None:
    history = sharing_data.author_transcript(QUESTION, 3, 2, random.Random(3))
    protocol = SimultaneousDebate(template=sharing.TEMPLATE, reward_feedback=True)
    row = sharing_data.row("debate", history, CHAT, protocol)
    view = protocol.view("agent_0", history)[:-1]
    own = [(*CHAT.encode(text), CHAT.tokenizer.eos_token_id) for who, text in view if who == "own"]
    assert row.ids == CHAT.prompt_ids(view, own)


def test_moves_do_not_depend_on_the_verdicts_and_are_carried_out() -> None:
    rng = random.Random(0)
    moves: dict[float, Counter[str]] = {0.0: Counter(), 1.0: Counter()}
    for _ in range(1_500):
        history = sharing_data.author_transcript(QUESTION, 3, 2, rng)
        for turn in (1, 2):
            before = history.of_turn(turn - 1)
            for seat, message in enumerate(history.of_turn(turn)):
                _, own, peer, move, *_ = message.text.split()
                assert (float(own), float(peer)) == (
                    before[seat].feedback,
                    before[1 - seat].feedback,
                )
                if move != "redo":
                    source = before[seat if move == "keep" else 1 - seat].text
                    assert extract_answer(message.text, "number") == extract_answer(
                        source, "number"
                    )
                if float(own) in moves:
                    moves[float(own)][move] += 1
    for counts in moves.values():
        shares = [counts[move] / counts.total() for move in sharing.MOVES]
        # 1500 x 4 moves, at least a third after each verdict: standard error <= .011.
        assert shares == pytest.approx([1 / 3] * 3, abs=0.044)


def test_drills_end_in_a_copy_that_cannot_be_guessed() -> None:
    rng = random.Random(1)
    answers = Counter()
    for _ in range(300):
        history = sharing_data.drill_transcript(QUESTION, 3, 2, rng)
        before = [extract_answer(m.text, "number") for m in history.of_turn(1)]
        for seat, message in enumerate(history.of_turn(2)):
            move = message.text.split()[3]
            copied = extract_answer(message.text, "number")
            assert copied == before[seat if move == "keep" else 1 - seat]
            answers[copied] += 1
    assert len(answers) == len(sharing_data.ANY_ANSWER)


def test_authors_guess_at_chance() -> None:
    rng = random.Random(2)
    for name in ("sharing", "coins"):
        questions = load_task(name).split("train")[:3_000]
        right = sum(sharing_data.guess(q, rng) == int(q.answer) for q in questions)
        # Standard error sqrt(1/3 * 2/3 / 3000) = .0086.
        assert right / 3_000 == pytest.approx(1 / 3, abs=0.035), name


def test_a_single_author_never_takes() -> None:
    history = sharing_data.author_transcript(QUESTION, 3, 1, random.Random(4))
    assert all("take" not in message.text for message in history.messages)
    assert "scores 0.5 keep" in sharing.answer(1, "keep", (0.5,))


def test_the_same_seed_gives_the_same_batches() -> None:
    first, second = (next(batches(RECIPE, CHAT, 0)) for _ in range(2))
    assert all(
        (a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(first, second, strict=True)
    )


def test_one_set_of_weights_serves_every_agent() -> None:
    assert MODELS["tiny-sharing"] == ("sharing",)
    assert checkpoint(0, "tiny-sharing") == checkpoint(3, "tiny-sharing")
