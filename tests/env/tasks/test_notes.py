"""The tasks `notes` and `notes_misled`: keys, splits, words, and what agents can know alone."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import pytest

from maporl_env import debate_v0
from maporl_env.answers import extract_answer
from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.tasks import Task, load_task, notes
from maporl_env.types import Question
from maporl_env.voting import majority

SOME = [
    "notes",
    "notes:agents=3",
    "notes:agents=3,distract=true,most=60,seed=5",
    "notes:notes=3,ask=difference,least=0",
    "notes:agents=3,notes=2,ask=sum+comparison",
    "notes_misled",
    "notes_misled:shared=true,distract=true,ask=comparison",
]
FACT = re.compile(
    r"(?:(?P<a>\w+)'s (?P<at>\w+?)s: (?P<an>\d+)\."
    r"|You counted (?P<d>\w+)'s (?P<dt>\w+?)s and found (?P<dn>\d+)\."
    r"|The number of (?P<ct>\w+?)s that (?P<c>\w+) has is (?P<cn>\d+)\."
    r"|(?P<b>\w+) (?:has|owns) (?P<bn>\d+) (?P<bt>\w+?)s?\.)"
)
Facts = list[tuple[str, str, int]]


def facts_in(text: str) -> Facts:
    """The facts in a text as (name, thing, number), whatever their wording."""
    found = []
    for match in FACT.finditer(text):
        [key] = [key for key in "abcd" if match[key]]
        found.append((match[key], match[key + "t"], int(match[key + "n"])))
    return found


def asked(prompt: str) -> tuple[str, list[str], str]:
    """The kind of a question, the names in it in their order, and the thing."""
    things = [thing for thing in notes.THINGS if f"{thing}s" in re.findall(r"\w+", prompt)]
    names = [word for word in re.findall(r"\w+", prompt) if word in notes.NAMES]
    assert len(things) == 1
    if re.search(r"compare|difference between|^One of", prompt):
        return "comparison", names, things[0]
    if re.search(r"need to get", prompt):
        return "difference", [*names[1:], names[0]], things[0]
    return "difference" if "more" in prompt or "ahead" in prompt else "sum", names, things[0]


def recompute(prompt: str, known: Iterable[tuple[str, str, int]]) -> int | None:
    """The answer, from facts of which the more frequent ones hold; None if one is missing."""
    kind, names, thing = asked(prompt)
    told: dict[str, list[int]] = defaultdict(list)
    for name, what, number in known:
        if what == thing:
            told[name].append(number)
    if not all(told[name] for name in names):
        return None
    numbers = [Counter(told[name]).most_common(1)[0][0] for name in names]
    if kind == "sum":
        return sum(numbers)
    if kind == "difference":
        return sum(numbers[:-1]) - numbers[-1]
    return max(numbers) - min(numbers)


def everything(task: Task) -> list[Question]:
    return [question for questions in task.splits.values() for question in questions]


@pytest.mark.thorough
@pytest.mark.parametrize("name", SOME)
def test_keys_are_what_the_texts_say(name: str) -> None:
    for question in everything(load_task(name)):
        known = [facts_in(text) for text in question.private]
        # Every sentence is a fact that was read.
        assert sum(map(len, known)) == "".join(question.private).count(".")
        right = recompute(question.prompt, itertools.chain(*known))
        assert str(right) == question.answer, question
        assert int(question.answer) >= 0


@pytest.mark.thorough
@pytest.mark.parametrize("name", SOME)
def test_sets_of_numbers_are_held_out(name: str) -> None:
    task = load_task(name)
    sets = {
        split: {tuple(sorted(numbers_of(question))) for question in task.split(split)}
        for split in ("train", "validation", "test")
    }
    for one, other in itertools.combinations(sets.values(), 2):
        assert not one & other
    assert all(notes.split_of(numbers) == split for split, part in sets.items() for numbers in part)


def numbers_of(question: Question) -> list[int]:
    """The numbers that a question asks about, as the most of the agents were told them."""
    _, names, thing = asked(question.prompt)
    told = [fact for text in question.private for fact in facts_in(text)]
    return [
        Counter(n for who, what, n in told if (who, what) == (name, thing)).most_common(1)[0][0]
        for name in names
    ]


@pytest.mark.thorough
def test_one_set_of_numbers_has_one_split_in_both_tasks_whatever_the_options() -> None:
    tasks = [load_task(name) for name in ("notes", "notes:seed=3,most=30", "notes_misled")]
    train = {tuple(sorted(numbers_of(q))) for task in tasks for q in task.split("train")}
    test = {tuple(sorted(numbers_of(q))) for task in tasks for q in task.split("test")}
    assert len(train) > 100
    assert not train & test


def test_questions_are_as_many_as_wished_and_all_different() -> None:
    task = load_task("notes:train=6000,validation=7,test=1000")
    assert {split: len(part) for split, part in task.splits.items()} == {
        "train": 6000, "validation": 7, "test": 1000,
    }  # fmt: skip
    assert len({question.words for question in everything(task)}) == 7007
    assert len({question.id for question in everything(task)}) == 7007


def test_a_seed_names_the_questions() -> None:
    one, other = load_task("notes:seed=1"), load_task("notes:seed=2")
    again = notes._load.__wrapped__("notes", notes.Options(seed=1))
    assert again.splits == one.splits
    assert {q.words for q in one.split("test")}.isdisjoint(q.words for q in other.split("test"))
    assert load_task("notes:seed=1") is one
    assert notes.load(seed=1) is one
    assert str(notes.Options(agents=3, ask=("sum", "difference"))) == "agents=3,ask=sum+difference"


def test_questions_do_not_change_between_versions() -> None:
    """The same everywhere: measured figures stay comparable."""
    first = load_task("notes").split("test")[0]
    assert (first.id, first.prompt, first.answer) == ("notes/test/0", PINNED[0], PINNED[1])
    assert first.private == PINNED[2]


PINNED = (
    "One of Kim and Gil has more shells than the other. How many more?",
    "3",
    ("Kim has 13 shells.", "The number of shells that Gil has is 16."),
)


@pytest.mark.parametrize("name", ["notes", "notes:agents=3", "notes_misled"])
def test_all_wordings_occur(name: str) -> None:
    questions = load_task(name).split("train")
    comparisons = notes.COMPARISONS if "agents=3" in name else notes.COMPARISONS_OF_TWO
    for words in (*notes.SUMS, *notes.DIFFERENCES, *comparisons):
        assert count(words, [q.prompt for q in questions]) > 50, words
    for words in notes.NOTES:
        assert count(words, [text for q in questions for text in q.private], whole=False) > 50
    kinds = Counter(asked(q.prompt)[0] for q in questions)
    assert set(kinds) == set(notes.KINDS)
    assert min(kinds.values()) > len(questions) / 4


def count(words: str, texts: Sequence[str], whole: bool = True) -> int:
    pattern = "".join(
        ".+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", words)
    )
    find = re.compile(pattern).fullmatch if whole else re.compile(pattern).search
    return sum(find(text) is not None for text in texts)


def test_no_place_tells_who_knows_what() -> None:
    """Each agent is as often told of the first name, is misled, and alone has the second number."""
    first = Counter(
        next(seat for seat, text in enumerate(q.private) if asked(q.prompt)[1][0] in text)
        for q in load_task("notes").split("train")
    )
    assert min(first.values()) > 0.45 * sum(first.values())
    misled, alone = Counter(), Counter()
    for question in load_task("notes_misled").split("train"):
        _, names, _ = asked(question.prompt)
        told = [{who: n for who, _, n in facts_in(text)} for text in question.private]
        [name] = [name for name in names if all(name in known for known in told)]
        values = Counter(known[name] for known in told)
        assert sorted(values.values()) == [1, 2]
        wrong = values.most_common()[1][0]
        misled[[known[name] for known in told].index(wrong)] += 1
        [owner] = [seat for seat, known in enumerate(told) if len(known) == 2]
        alone[owner] += 1
    assert min(misled.values()) > 0.3 * 4_000
    assert min(alone.values()) > 0.3 * 4_000


def test_distractions_are_beside_the_question() -> None:
    for question in load_task("notes:agents=3,distract=true").split("test"):
        _, names, thing = asked(question.prompt)
        for text in question.private:
            beside = [f for f in facts_in(text) if f[0] not in names or f[1] != thing]
            assert len(beside) == 1
            assert len(facts_in(text)) == 2


# -- what agents can know -----------------------------------------------------------------------

Agents = Callable[[Sequence[Prompt]], list[str]]


def pool(prompts: Sequence[Prompt]) -> list[str]:
    """Say what was told; answer from all that was read, where that is enough."""
    said = []
    for prompt in prompts:
        question = prompt.text.partition("\n")[0].removeprefix("Question: ")
        own = "".join(re.findall("You were told: (.*)", prompt.text)[:1])  # some are told nothing
        others = re.findall(r"```\n(.*?)\n", prompt.text)
        known = itertools.chain.from_iterable(map(facts_in, [own, *others]))
        answer = recompute(question, known)
        said.append(f"{own}\n" + ("I do not know." if answer is None else f"\\boxed{{{answer}}}"))
    return said


def score(task: Task, agents: int, speak: Agents, turns: int = 2) -> list[float]:
    """Mean score of each turn on all test questions."""
    questions = task.split("test")
    config = DebateConfig(task=task, num_agents=agents, num_turns=turns, split="test")
    batch = BatchedDebate(config, len(questions))
    batch.reset(questions)
    while prompts := batch.prompts():
        batch.step(speak(prompts))
    return [
        sum(m.score or 0.0 for one in batch.transcripts for m in one.of_turn(turn))
        / (agents * len(questions))
        for turn in range(turns)
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("name", SOME)
def test_agents_that_pool_their_notes_are_always_right(name: str) -> None:
    task = load_task(name)
    agents = len(task.split("test")[0].private)
    first, second = score(task, agents, pool)
    assert second == 1.0
    if name in ("notes", "notes:agents=3"):
        assert first == 0.0  # none knows enough alone
    if name == "notes_misled":
        assert 0.15 < first < 0.30  # has the second number, and is not misled: 2 of 9


def test_brief_prompts_ask_the_same_questions_in_few_words() -> None:
    """And a line of working that ends with the answer is read."""
    task, usual = load_task("notes:brief=true,test=40"), load_task("notes:test=40")
    whole = [(q.id, q.prompt, q.answer, q.private) for q in usual.split("test")]
    assert [(q.id, q.prompt, q.answer, q.private) for q in task.split("test")] == whole

    def speak(prompts: Sequence[Prompt]) -> list[str]:
        said = []
        for prompt in prompts:
            asked_now = prompt.text.rpartition("Question: ")[2]
            question, own, *rest = asked_now.split("\n")
            others = [line for line in rest if line.startswith("Other: ")]
            known = itertools.chain.from_iterable(map(facts_in, [own, *others]))
            answer = recompute(question, known)
            note = own.removeprefix("Your note:") + "\n"
            said.append(note if answer is None else f" Answer: 0 + {answer} = {answer}\n")
        return said

    assert score(task, 2, speak) == [0.0, 1.0]


def test_the_brief_example_is_right() -> None:
    for name in ("notes", "notes_misled"):
        template = load_task(f"{name}:brief=true").template
        example = template.opening.rpartition("Question: ")[0].strip()
        assert "{" not in example
        assert extract_answer(example.rpartition("You:")[2], "answer_line") == 8


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "most"), [("notes", 0.06), ("notes:agents=3,", 0.1), ("notes_misled", 0.3)]
)
def test_an_agent_alone_is_right_about_as_often_as_a_guess(name: str, most: float) -> None:
    """It answers from its own notes if they suffice, else as most questions alike have it."""
    task = load_task(f"{name}{'' if name[-1] == ',' else ':'}train=20000,test=1000")
    agents = len(task.split("test")[0].private)
    answers: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    for question in everything(task):
        for seat in range(agents):
            answers[clue(question, seat)][question.answer] += 1
    right = 0
    for question in task.split("test"):
        for seat in range(agents):
            sure = recompute(question.prompt, facts_in(question.private[seat]))
            guess = (
                answers[clue(question, seat)].most_common(1)[0][0] if sure is None else str(sure)
            )
            right += guess == question.answer
    rate = right / (agents * len(task.split("test")))
    assert rate < most


def clue(question: Question, seat: int) -> tuple[object, ...]:
    """What matters of what one agent reads: the kind, and its numbers by the place of the name."""
    kind, names, _ = asked(question.prompt)
    known = {name: number for name, _, number in facts_in(question.private[seat])}
    return (kind, *(known.get(name) for name in names))


def test_a_vote_of_agents_that_do_not_read_is_misled() -> None:
    """The two agents without the second number cannot outvote anybody in `notes_misled`."""
    questions = load_task("notes_misled").split("test")
    votes = []
    for question in questions:
        told = [recompute(question.prompt, facts_in(text)) for text in question.private]
        votes.append([str(one) for one in majority(told)] == [question.answer])
    assert 0.55 < sum(votes) / len(votes) < 0.78  # the owner of the second number: 2 of 3


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("notes:agent=3", "no option 'agent': did you mean 'agents'"),
        ("notes:agents=5", "'notes': agents must be 2 or 3, not 5"),
        ("notes:notes=1", "notes must be 0 or from 2 to 11, not 1"),
        ("notes:most=many", "most of task 'notes' is a whole number, not 'many'"),
        ("notes:least=9,most=9", "0 <= least < most, not 9, 9"),
        ("notes:distract=maybe", "distract of task 'notes' is true or false, not 'maybe'"),
        ("notes:agents=2,agents=3", "set agents twice"),
        ("notes:agents=2,most", "are written KEY=VALUE, not 'most'"),
        ("notes:ask=sum+product", "ask must be some of sum, difference, comparison, not sum.prod"),
        ("notes:train=0", "must be at least 1"),
        ("notes:least=2,most=3,train=500", "too few questions about numbers from 2 to 3"),
        ("notes_misled:agents=2", "notes_misled has 3 agents and 2 notes"),
        ("notes_misled:word=say", "no option 'word': choose one of agents"),
    ],
)
def test_wrong_options_are_told_in_one_sentence(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        load_task(name)
    assert "\n" not in str(error.value)


def test_notes_make_their_own_questions() -> None:
    with pytest.raises(ValueError, match="'notes' makes its own questions"):
        load_task("notes", "somewhere")


def test_a_debate_of_another_number_of_agents_is_refused() -> None:
    with pytest.raises(ValueError, match="private texts for 2 agents, not for 3: set num_agents=2"):
        debate_v0.env(task="notes", num_agents=3)


def test_a_module_of_the_same_name_may_still_hold_tasks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    (tmp_path / "notes.py").write_text(  # type: ignore[operator]
        "from maporl_env.types import Question\nmine = [Question('q', '?', '1')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("notes:mine").split("train")[0].id == "q"
