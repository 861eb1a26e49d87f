"""The tasks `reasoning_gym:NAME`: every data set of the library as it is installed.

`test_reasoning_options` has what needs no library.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

pytest.importorskip("reasoning_gym", reason="needs the extra reasoning")

from maporl_env import debate_v0
from maporl_env.credit import correctness
from maporl_env.tasks import Task, load_task, reasoning
from maporl_env.tasks.reasoning_stream import NO_KEY, config_classes
from maporl_env.types import Question
from maporl_env.verifiers.reasoning import ReasoningGymVerifier

pytestmark = pytest.mark.thorough

FEW = "train=6,validation=1,test=2"
NO_ANSWER_GIVEN = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Data sets that give no answer of their own: only the scorer knows."""
HOSTILE = ("", "7", "[1,2]", "{", "()", "1/0", "9**9**9", "exit()", "\0", "a" * 5_000, "[[", '"')


def boxed(text: str) -> str:
    """A message that marks a text as its answer; braces in it are escaped."""
    return f"so \\boxed{{{text.replace('{', chr(92) + '{').replace('}', chr(92) + '}')}}}"


def verifier_of(task: Task) -> ReasoningGymVerifier:
    assert task.make_verifier is not None
    made = task.make_verifier()
    assert isinstance(made, ReasoningGymVerifier)
    made.seconds = 60.0  # on a busy machine
    return made


def everything(task: Task) -> list[Question]:
    return [question for split in task.splits for question in task.split(split)]


@pytest.mark.parametrize("name", list(config_classes()))
@pytest.mark.timeout(600)
def test_every_data_set_asks_and_scores(name: str) -> None:
    task = load_task(f"reasoning_gym:{name},{FEW}")
    assert [len(task.split(split)) for split in ("train", "validation", "test")] == [6, 1, 2]
    asked = everything(task)
    assert len({question.prompt for question in asked}) == len(asked)
    assert all(question.kind == "scored" for question in asked)
    verifier = verifier_of(task)
    given = [question for question in asked if question.answer != NO_KEY]
    assert (not given) == (name in NO_ANSWER_GIVEN)
    own = verifier.score(given, [boxed(question.answer) for question in given])
    assert own == [pytest.approx(1.0)] * len(given)
    hostile = [boxed(text) for text in HOSTILE if not text.startswith("9**")]
    scores = verifier.score([asked[0]] * len(hostile), hostile)
    assert all(score is not None and 0 <= score <= 1 for score in scores)
    assert verifier.score(asked[:1], ["no box"]) == [0.0]


def test_what_cannot_be_a_task_says_why() -> None:
    with pytest.raises(ValueError, match="'composite' is no task of its own: it is a mixture"):
        load_task("reasoning_gym:composite")


DIGEST = """
import hashlib, random, sys
from maporl_env.tasks import load_task
random.seed(int(sys.argv[1]))
names = ("list_functions", "pool_matrix", "word_ladder")
for name in names:
    task = load_task(f"reasoning_gym:{name},train=4,validation=1,test=2")
    texts = [(q.id, q.prompt, q.answer) for s in task.splits for q in task.split(s)]
    print(name, hashlib.sha256(repr(texts).encode()).hexdigest())
"""


@pytest.mark.timeout(1100)
def test_questions_are_the_same_in_every_process() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", DIGEST, str(seed)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            timeout=500,
            check=True,
        ).stdout
        for seed in (1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].count("\n") == 3


def test_the_callers_random_numbers_stay_as_they_were() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    everything(load_task(f"reasoning_gym:list_functions,{FEW},seed=9"))
    assert random.random() == expected


def test_splits_share_nothing_whatever_seed_and_size() -> None:
    name = "reasoning_gym:chain_sum,min_terms=2,max_terms=2,min_digits=1,max_digits=1"
    found: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for options in ("train=40,test=9", "seed=1,train=60,validation=9", "seed=2,train=5,test=40"):
        task = load_task(f"{name},{options}")
        for split, prompts in found.items():
            prompts |= {question.prompt for question in task.split(split)}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_seeds_ask_other_questions() -> None:
    sets = [
        {q.prompt for q in load_task(f"reasoning_gym:basic_arithmetic,train=50,{s}").split("train")}
        for s in ("seed=0", "seed=1")
    ]
    assert len(sets[0] & sets[1]) < 5


def test_difficulty_options_reach_the_data_set() -> None:
    task = load_task(
        "reasoning_gym:basic_arithmetic,min_digits=1,max_digits=1,min_terms=2,max_terms=2,"
        f'operators=["+"],allow_negation=false,allow_parentheses=false,{FEW}'
    )
    for question in everything(task):
        first, plus, second = question.prompt.removeprefix("Calculate ").rstrip(".").split()
        assert plus == "+"
        assert int(first) + int(second) == int(question.answer)
        assert max(int(first), int(second)) <= 10  # the library's one digit


def test_a_few_different_questions_are_asked_once_each() -> None:
    task = load_task("reasoning_gym:count_bits,min_n=1,max_n=40,train=500,validation=500,test=500")
    asked = everything(task)
    assert 20 < len(asked) <= 40
    assert len({question.prompt for question in asked}) == len(asked)


def test_an_answer_in_other_words_is_right_in_the_debate() -> None:
    """A puzzle with many solutions: the scorer tells, not the data set's own answer."""
    task = load_task(f"reasoning_gym:string_splitting,{FEW}")
    question = task.split("train")[0]
    env = debate_v0.parallel_env(task=task, num_agents=2, num_turns=1)
    env.reset(options={"question": question})
    env.step({"agent_0": boxed(question.answer), "agent_1": boxed("1 2 3 4 5 6 7")})
    right, known = correctness(env.unwrapped.transcript)
    assert right.tolist() == [[True, False]]
    assert known.all()


def test_an_expression_that_never_ends_scores_0() -> None:
    task = load_task(f"reasoning_gym:countdown,{FEW}")
    verifier = verifier_of(task)
    verifier.seconds = 20.0
    question = task.split("train")[0]
    answers = [boxed("9**9**9**9"), boxed(question.answer)]
    assert verifier.score([question] * 2, answers) == [0.0, 1.0]


@pytest.mark.parametrize("name", ["countdown", "puzzle24", "intermediate_integration"])
def test_an_answer_starts_no_program_and_writes_no_file(name: str, tmp_path: object) -> None:
    task = load_task(f"reasoning_gym:{name},{FEW}")
    question, target = task.split("train")[0], f"{tmp_path}/written"
    attacks = (
        f"__import__('os').system('touch {target}')",
        f"__import__('pathlib').Path('{target}').write_text('x')",
        f"open('{target}', 'w')",
        f"__import__('subprocess').run(['touch', '{target}'])",
    )
    scores = verifier_of(task).score([question] * len(attacks), [boxed(a) for a in attacks])
    assert not os.path.exists(target)
    assert all(score is not None and score < 0.5 for score in scores)


def test_questions_of_another_data_set_get_no_score() -> None:
    one, other = (load_task(f"reasoning_gym:{name},{FEW}") for name in ("gcd", "lcm"))
    question = other.split("train")[0]
    assert verifier_of(one).score([question], [boxed(question.answer)]) == [None]
    moved = Question("gcd/0", question.prompt, question.answer, "scored")
    assert verifier_of(one).score([moved], [boxed(question.answer)]) == [None]


def test_the_parts_of_a_name() -> None:
    assert reasoning.parts_of('a,b=["+","-"],c=1') == ["a", 'b=["+","-"]', "c=1"]
    assert reasoning.parts_of('a,b="x,y"') == ["a", 'b="x,y"']
