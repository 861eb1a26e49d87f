"""Answers for a verifier: labels, halves that share no question, balance per question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniatures import Checkpoint, load_team

from maporl_agents.config import Sampling
from maporl_agents.models.team import Team
from maporl_agents.verifier.data import (
    Example,
    Sampled,
    balance,
    by_question,
    choose_halves,
    label,
    load_examples,
    recorded_answers,
    sample_answers,
    save_examples,
    split,
)
from maporl_env.config import DebateConfig
from maporl_env.tasks import Task
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey


def question(name: str, answer: str = "4") -> Question:
    return Question(name, f"how much is {name} ?", answer)


def answers(name: str, right: int, wrong: int) -> list[Example]:
    asked = question(name)
    return [Example(asked, f"{name} right {i}", True) for i in range(right)] + [
        Example(asked, f"{name} wrong {i}", False) for i in range(wrong)
    ]


def test_the_key_labels() -> None:
    asked = question("2 + 2")
    made = label([asked] * 3, ["\\boxed{4}", "\\boxed{5}", "4"])
    assert [example.right for example in made] == [True, False, False]


def test_questions_with_private_texts_are_refused(checkpoint: Checkpoint) -> None:
    told = Question("notes/1", "how much ?", "4", private=("one", "three"))
    team = load_team(checkpoint("llama"), num_turns=1)
    game = DebateConfig(task=[question("a"), told], num_agents=2, num_turns=1)
    with pytest.raises(ValueError, match="'notes/1' has private texts, which a learned"):
        sample_answers(
            team, game, [question("a"), told], Sampling(), debates_per_question=1, seed=0
        )


def test_balance_by_hand() -> None:
    examples = answers("a", 3, 1) + answers("b", 0, 4) + answers("c", 2, 0) + answers("d", 2, 5)
    kept, counts = balance(examples, seed=0)
    # a gives 1 + 1, d gives 2 + 2; b is all wrong, c all right
    names = Counter((e.question.id, e.right) for e in kept)
    assert names == {("a", True): 1, ("a", False): 1, ("d", True): 2, ("d", False): 2}
    assert (counts.questions, counts.all_right, counts.all_wrong) == (4, 1, 1)
    assert (counts.answers, counts.kept) == (17, 6)


groups = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


@given(groups, st.integers(0, 3))
def test_every_kept_question_has_as_many_right_as_wrong(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    examples = [e for i, (r, w) in enumerate(sizes) for e in answers(f"q{i}", r, w)]
    kept, counts = balance(examples, seed=seed)
    for group in by_question(kept).values():
        assert 2 * sum(e.right for e in group) == len(group)
    assert len(kept) == counts.kept == sum(2 * min(r, w) for r, w in sizes)
    assert [e for e in examples if e in kept] == kept  # nothing new, nothing twice, same order
    fillable = sum(r > 0 and w > 0 for r, w in sizes)
    assert counts.questions - counts.all_right - counts.all_wrong == fillable


def test_what_is_drawn_depends_on_the_seed_and_the_question_alone() -> None:
    one = answers("a", 9, 2)
    kept, _ = balance(one, seed=0)
    assert balance(answers("b", 1, 1) + one, seed=0)[0][2:] == kept
    assert any(balance(one, seed=seed)[0] != kept for seed in range(1, 9))


def test_equal_words_are_one_question_whatever_their_ids() -> None:
    twin = Question("other", question("a").prompt, "4")
    examples = [*answers("a", 1, 0), Example(twin, "x", False)]
    assert balance(examples, seed=0)[1].kept == 2


def test_halves_share_no_question() -> None:
    examples = [e for i in range(20) for e in answers(f"q{i}", 1, 2)]
    train, test = split(examples, 0.25, seed=1)
    assert len(by_question(test)) == 5
    assert not by_question(train).keys() & by_question(test).keys()
    assert Counter(train) + Counter(test) == Counter(examples)
    assert split(list(reversed(examples)), 0.25, seed=1)[1] == list(reversed(test))
    assert any(split(examples, 0.25, seed=seed)[1] != test for seed in range(2, 5))


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_leaves_something_on_both_sides(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(answers("a", 1, 1) + answers("b", 1, 1), share, 0)
    with pytest.raises(ValueError, match="one question"):
        split(answers("a", 1, 1), 0.5, 0)


def test_files_give_back_what_they_were_given(tmp_path: Path) -> None:
    examples = [*answers("a", 1, 1), Example(question("é"), "\ud800 \n \x00", False)]
    save_examples(tmp_path / "a.jsonl", examples)
    assert load_examples(tmp_path / "a.jsonl") == examples


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no answers"),
        ("{", "line 1: not valid JSON"),
        ("{}", "line 1: an answer has"),
        ('{"question": {"id": 1, "prompt": "", "answer": ""}, "response": "", "right": true}', "m"),
        ('{"question": {"id": "", "prompt": "", "answer": "4"}, "response": "", "right": 1}', "m"),
        ('{"question": [], "response": "", "right": true}', "line 1: an answer has"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load_examples(tmp_path / "a.jsonl")


def test_a_team_is_sampled_many_times_per_question(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_agents=2, num_turns=2, tuning="none")
    questions = [question("a"), question("b")]
    game = DebateConfig(task=questions, num_agents=2, num_turns=2)
    sampling = Sampling(max_new_tokens=4, temperature=1.4)
    done: list[int] = []
    examples, unjudged, left_out = sample_answers(
        team, game, questions, sampling,
        debates_per_question=3, seed=0, batch_size=4, on_batch=done.append,
    )  # fmt: skip
    assert (unjudged, left_out) == (0, ())
    # 2 questions x 3 debates x 2 turns x 2 agents, in batches of 4 and 2 debates
    assert [e.question.id for e in examples] == ["a"] * 12 + ["b"] * 12
    assert done == [4, 6]
    assert len({e.response for e in examples}) > 12
    assert examples == label([e.question for e in examples], [e.response for e in examples])


def test_another_verifier_can_label(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_agents=1, num_turns=1, tuning="none")
    questions = [question("a"), question("b")]
    game = DebateConfig(task=questions, num_agents=1, num_turns=1)
    examples, _, _ = sample_answers(
        team, game, questions, Sampling(max_new_tokens=2), debates_per_question=2, seed=0,
        verifier=lambda asked, texts: [float(one.id == "b") for one in asked],
    )  # fmt: skip
    assert [(e.question.id, e.right) for e in examples] == [("a", False)] * 2 + [("b", True)] * 2


def test_what_no_key_can_judge_is_not_labelled_by_it() -> None:
    asked = Question("p", "write f", "assert f()", "code")
    with pytest.raises(ValueError, match="question 'p' has answers of kind 'code'"):
        label([asked], ["```python\ndef f(): return True\n```"])


def sampled_with(verifier: Any, team: Team) -> Sampled:
    """Answers of a task that brings a verifier of its own."""
    programs = [Question(name, f"write {name}", "assert f()", "code") for name in "ab"]
    task = Task("programs", {"train": programs}, make_verifier=lambda: verifier)
    game = DebateConfig(task=task, num_agents=2, num_turns=1, verifier=AnswerKey())
    return sample_answers(
        team, game, programs, Sampling(max_new_tokens=2), debates_per_question=2, seed=0
    )


def test_a_task_with_a_verifier_of_its_own_is_labelled_by_it(checkpoint: Checkpoint) -> None:
    team = load_team(checkpoint("llama"), num_agents=2, num_turns=1, tuning="none")

    def judge(questions: Sequence[Question], texts: Sequence[str]) -> list[float | None]:
        return [1.0 if q.id == "a" else None for q in questions]

    examples, unjudged, _ = sampled_with(judge, team)
    # 2 questions x 2 debates x 2 agents; the key would call all wrong, None is no answer's label
    assert [(e.question.id, e.right) for e in examples] == [("a", True)] * 4
    assert unjudged == 4
    with pytest.raises(ValueError, match=r"'a' is scored 0\.5: .* not which are right"):
        sampled_with(lambda questions, texts: [0.5] * len(texts), team)


def asked(*names: str) -> list[Question]:
    return [question(name) for name in names]


def names_of(questions: Sequence[Question]) -> str:
    return "".join(sorted(q.id for q in questions))


def everything(questions: Sequence[Question], half: str) -> list[Question]:
    return list(questions)


def test_halves_of_one_list_share_nothing() -> None:
    """A user's file is one list under both names; equal words are one question."""
    whole = [*asked(*"abcdefgh"), Question("twin", question("a").prompt, "4")]
    for other in (whole, list(reversed(whole))):
        train, test = choose_halves(whole, other, everything, held_out_share=0.25, seed=0)
        assert len({q.prompt for q in test}) == 2
        assert not {q.prompt for q in train} & {q.prompt for q in test}
        assert Counter(q.id for q in train + test) == Counter(q.id for q in whole)


def test_the_test_half_leaves_out_what_is_trained_on() -> None:
    overlapping = (asked(*"abc"), asked(*"bcde"))
    train, test = choose_halves(*overlapping, everything, held_out_share=0.5, seed=0)
    assert (names_of(train), names_of(test)) == ("abc", "de")

    def first(questions: Sequence[Question], half: str) -> list[Question]:
        return list(questions[: {"train": 2, "test": 3}[half]])

    train, test = choose_halves(*overlapping, first, held_out_share=0.5, seed=0)
    assert (names_of(train), names_of(test)) == ("ab", "cde")
    with pytest.raises(ValueError, match="every question of the test split"):
        choose_halves(asked(*"abc"), asked(*"ab"), everything, held_out_share=0.5, seed=0)


def test_recorded_texts_are_labelled_as_their_source_does(data_dir: Path) -> None:
    examples = recorded_answers(data_dir / "gsm8k" / "example_model_solutions.jsonl")
    # counted in the file: 900 questions, four models; is_correct is true 1,392 times
    assert len(examples) == 3600
    assert sum(example.right for example in examples) == 200 + 2 * 165 + 3 * 138 + 4 * 112
    _, counts = balance(examples, seed=0)
    # 285 with no right answer, 112 with four; 200 and 138 give a pair each, 165 two pairs
    assert (counts.all_wrong, counts.all_right) == (285, 112)
    assert counts.kept == 2 * (200 + 138) + 4 * 165
