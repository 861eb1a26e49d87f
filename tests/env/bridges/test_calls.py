"""Who is asked: a cascade goes on while answers differ, a router asks whom the verifier liked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from maporl_env.bridges.calls import Cascade, Similarity, VerifierRouter
from maporl_env.bridges.speakers import play
from maporl_env.types import Question


class Saying:
    """Says given texts in turn, and remembers what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), list[str]()

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        self.asked += prompts
        return [self.texts.pop(0) if len(self.texts) > 1 else self.texts[0] for _ in prompts]


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


def test_agreement_ends_a_cascade_at_the_cheap_speaker() -> None:
    cheap, dear = Saying(box(3), "I say " + box(3), box(4)), Saying(box(9))
    cascade = Cascade([cheap, dear])
    assert cascade(["p"]) == [box(3)]
    assert (cheap.asked, dear.asked, cascade.calls) == (["p"] * 3, [], [3, 0])


def test_equal_answers_in_other_words_agree() -> None:
    cheap = Saying(box("0.5"), box("1/2"), box(7))
    assert Cascade([cheap, Saying(box(9))])(["p"]) == [box("0.5")]


def test_only_prompts_without_agreement_go_on() -> None:
    cheap = Saying(box(1), box(2), box(3), box(5), box(5), box(5))
    dear = Saying(box(9))
    cascade = Cascade([cheap, dear])
    assert cascade(["hard", "easy"]) == [box(9), box(5)]
    assert dear.asked == ["hard"]
    assert cascade.calls == [6, 1]


def test_messages_without_an_answer_agree_with_none() -> None:
    assert Cascade([Saying("what?"), Saying(box(9))])(["p"]) == [box(9)]


def test_a_cascade_of_noisy_speakers_is_better_than_the_first_and_cheaper_than_the_last() -> None:
    """Right with probability .6 and .9, else at random: the cascade is near .9 for fewer calls."""
    noise = random.Random(0)

    def speaker(right: float) -> Any:
        return lambda prompts: [
            box(7 if noise.random() < right else noise.randrange(100)) for _ in prompts
        ]

    cascade = Cascade([speaker(0.6), speaker(0.9)], samples=3, agreement=2 / 3)
    said = cascade(["p"] * 4000)
    accuracy = said.count(box(7)) / len(said)
    # P(at least two of three right) is .648; the others go to the dear speaker: .648 + .352 x .9
    assert accuracy == pytest.approx(0.648 + 0.352 * 0.9, abs=0.025)
    assert cascade.calls[1] == pytest.approx(4000 * 0.352, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"speakers": [Saying("")]}, "at least two speakers, not 1"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"agreement": 0.0}, "a share in"),
        ({"agreement": 1.1}, "a share in"),
        ({"kind": "numbr"}, "numbr"),
    ],
)
def test_wrong_cascades_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Cascade(**{"speakers": [Saying(""), Saying("")], **settings})


def test_a_speaker_that_answers_too_little_is_named() -> None:
    with pytest.raises(ValueError, match="speaker 0 of the cascade gave 1 texts for 3 prompts"):
        Cascade([lambda prompts: ["one"], Saying("")])(["p"])


SUMS = [Question(f"s{n}", f"What is the sum of {n} and {n}?", str(2 * n)) for n in range(12)]
WORDS = [Question(f"w{n}", f"How many letters has {'a' * n}?", str(n)) for n in range(1, 13)]


def adder(prompts: Sequence[str]) -> list[str]:
    return [box(2 * int(p.split()[5])) if "sum" in p else box(-1) for p in prompts]


def counter(prompts: Sequence[str]) -> list[str]:
    return [box(p.count("a") - 2) if "letters" in p else box(-1) for p in prompts]


def by_key(questions: Sequence[Question], responses: Sequence[str]) -> list[float]:
    return [float(f"{{{q.answer}}}" in r) for q, r in zip(questions, responses, strict=True)]


def test_a_router_asks_the_speaker_that_was_right_on_like_questions() -> None:
    router = VerifierRouter.fitted([adder, counter], SUMS[::2] + WORDS[::2], by_key, neighbours=3)
    held_out = [*SUMS[1::2], *WORDS[1::2]]
    prompts = [question.prompt for question in held_out]
    assert router.route(prompts) == [0] * 6 + [1] * 6
    assert by_key(held_out, router(prompts)) == [1.0] * 12
    assert router.calls == [6, 6]


def test_a_router_takes_an_agents_place() -> None:
    router = VerifierRouter.fitted([adder, counter], SUMS + WORDS, by_key)
    batch = play([router, router], SUMS[:2], num_turns=1, verifier=by_key)
    assert [m.score for t in batch.transcripts for m in t.messages] == [1.0] * 4


def test_without_scores_nearby_the_best_of_all_is_asked() -> None:
    scores = np.array([[np.nan, np.nan], [0.2, 0.6]])
    router = VerifierRouter([adder, counter], ["one", "two"], scores, neighbours=1)
    assert router.route(["one"]) == [1]


def test_a_verifier_without_any_score_still_gives_a_route() -> None:
    router = VerifierRouter.fitted([adder, counter], SUMS[:3], lambda q, r: [None] * len(r))
    assert router.route(["anything"]) == [0]


def test_wrong_routers_are_refused() -> None:
    with pytest.raises(ValueError, match="neighbours must be at least 1"):
        VerifierRouter([adder], ["one"], np.ones((1, 1)), 0)
    with pytest.raises(ValueError, match="at least one of each"):
        VerifierRouter.fitted([adder], [], by_key)


def test_similarity_knows_a_text_and_is_not_moved_by_strange_ones() -> None:
    likeness = Similarity(["red pens", "blue hats", "red hats"])
    assert likeness.nearest(["RED  pens", "", "漢字"], 1).tolist()[0] == [0]
