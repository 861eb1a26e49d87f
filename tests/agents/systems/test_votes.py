"""Closed forms: votes of passes, the best of them, and what the first k give."""

from __future__ import annotations

from maporl_agents.systems.votes import Pass, accuracies, best, winners
from maporl_env.types import Question

QUESTION = Question("q", "1 + 1 ?", "2")


def is_two(question: Question, answer: object) -> bool:
    return answer == 2


def test_tied_answers_of_a_pass_share_its_vote() -> None:
    assert winners([(1,), (2,)]) == (1, 2)
    assert winners([(1, 2), (2,)]) == (2,)
    assert winners([(1, 2, 3), (1,), (2,)]) == (1, 2)
    assert winners([(), (3,)]) == (3,)
    assert winners([(), ()]) == ()


def test_the_best_is_chosen_among_the_highest_scores_by_a_vote() -> None:
    said = [(1,), (2,), (2,), (3,)]
    assert best(said, [1.0, 1.0, 1.0, 0.5]) == (2,)
    assert best(said, [0.0, None, 0.0, 1.0]) == (3,)
    assert best(said, [None] * 4) == ()


def test_the_first_k_passes_give_what_k_times_the_tokens_buy() -> None:
    passes = [Pass([(1,)], 4.0), Pass([(2,)], 6.0), Pass([(2,)], 5.0)]
    assert accuracies(passes, [QUESTION], is_two, "vote") == [[0.0], [0.5], [1.0]]
    scored = [
        one._replace(scores=(score,)) for one, score in zip(passes, (0.9, 0.1, 1.0), strict=True)
    ]
    assert accuracies(scored, [QUESTION], is_two, "best") == [[0.0], [0.0], [1.0]]
