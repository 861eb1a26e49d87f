"""MATH, MBPP, multiple choice and HotpotQA: small files of our own in the published formats."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from maporl_env import debate_v0
from maporl_env.answers import extract_answer
from maporl_env.sandbox import unavailable
from maporl_env.tasks import hub, load_task
from maporl_env.tasks.published import competition_math, hotpotqa
from maporl_env.tasks.published.passages import Passage, PassageIndex, read_folder
from maporl_env.verifiers import AnswerKey
from maporl_env.verifiers.programs import CodeTests

from .task_rows import write

needs_namespaces = pytest.mark.skipif(
    unavailable() is not None, reason=f"no namespaces: {unavailable()}"
)


def problem(number: int, level: int = 1, subject: str = "Algebra") -> dict[str, Any]:
    solution = rf"First \boxed{{{number}}} is wrong, so $\boxed{{\frac{{{number}}}{{2}}}}$."
    return {
        "problem": f"Halve ${number}$.",
        "level": f"Level {level}",
        "type": subject,
        "solution": solution,
    }


def test_math_reads_the_last_box_and_compares_by_value(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    task = load_task("math", write(tmp_path / "test.jsonl", [problem(3)]))
    (question,) = task.split("test")
    assert (question.prompt, question.answer) == ("Halve $3$.", r"\frac{3}{2}")
    assert task.make_verifier is not None
    verifier = task.make_verifier()
    answers = [r"\boxed{1.5}", r"\boxed{\dfrac32}", r"\boxed{3}", "1.5"]
    assert verifier.score([question] * 4, answers) == [1.0, 1.0, 0.0, 0.0]


def test_math_of_the_published_folder_spares_a_validation_set_from_all_subjects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competition_math, "NUM_VALIDATION", 4)
    for split, start, count in (("train", 0, 40), ("test", 100, 5)):
        for subject in ("algebra", "geometry"):
            folder = tmp_path / split / subject
            folder.mkdir(parents=True)
            for n in range(start, start + count):
                row = problem(n + (1000 if subject == "geometry" else 0), 1 + n % 5, subject)
                (folder / f"{n}.json").write_text(json.dumps(row), "utf-8")
    task = load_task("math", tmp_path)
    sizes = {name: len(questions) for name, questions in task.splits.items()}
    assert sizes == {"train": 76, "validation": 4, "test": 10}
    prompts = [{q.prompt for q in task.split(name)} for name in sizes]
    assert len(set().union(*prompts)) == 90
    again = load_task("math", tmp_path).split("validation")
    assert [q.prompt for q in again] == [q.prompt for q in task.split("validation")]
    hard = load_task("math:levels=4+5,subjects=Geometry", tmp_path).split("test")
    assert [q.prompt for q in hard] == ["Halve $1103$.", "Halve $1104$."]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"problem": "p", "solution": "It is 3."}, r"line 1: the solution holds no \\boxed"),
        ({"problem": " ", "solution": r"\boxed{3}"}, "line 1: no text in column 'problem'"),
        ({"problem": "p"}, "line 1: no text in column 'solution'"),
        ({"problem": "p", "solution": r"\boxed{ }"}, "line 1: gold answer"),
    ],
)
def test_wrong_rows_of_math(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_task("math", write(tmp_path / "m.jsonl", [row]))


def test_wrong_options_of_published_tasks_are_one_sentence(tmp_path: Path) -> None:
    place = write(tmp_path / "m.jsonl", [problem(3)])
    for options, complaint in (
        ("levels=6", "levels are some of 1, 2, 3, 4, 5, not 6"),
        ("levels=5", "no question is as the options of the task ask for"),
        ("subjects=cooking", "subjects are some of algebra"),
        ("level=5", "did you mean 'levels'"),
    ):
        with pytest.raises(ValueError, match=complaint):
            load_task(f"math:{options}", place)


def mbpp_row(number: int, **more: Any) -> dict[str, Any]:
    return {
        "task_id": number,
        "text": "Write a function to double a number.",
        "code": "def helper(n):\n    return n + n\ndef double(n):\n    return helper(n)",
        "test_list": ["assert double(2) == 4", "assert double(-1) == -2", "assert double(0) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
        **more,
    }


def test_mbpp_is_divided_by_the_published_numbers(tmp_path: Path) -> None:
    numbers = (1, 10, 11, 510, 511, 600, 601, 974)
    task = load_task("mbpp", write(tmp_path / "mbpp.jsonl", [mbpp_row(n) for n in numbers]))
    ids = {name: [int(q.id.removeprefix("mbpp/")) for q in qs] for name, qs in task.splits.items()}
    assert ids == {
        "prompt": [1, 10], "test": [11, 510], "validation": [511, 600], "train": [601, 974]
    }  # fmt: skip
    first = task.split("train")[0]
    assert first.prompt.count("assert") == 3
    assert "helper" not in first.prompt
    shown = load_task("mbpp:shown_tests=1", tmp_path).split("train")[0]
    assert shown.prompt.count("assert") == 1
    assert shown.answer == first.answer  # all tests are run


@needs_namespaces
def test_mbpp_runs_the_tests_with_their_imports_and_setup(tmp_path: Path) -> None:
    revised = mbpp_row(
        20,
        code="import math\ndef root(n):\n    return math.sqrt(n)",
        test_list=["assert math.isclose(root(SIXTEEN), 4.0)"],
        test_imports=["import math"],
        prompt="Write a function for the root.",
    )
    del revised["text"], revised["test_setup_code"]
    revised["test_imports"].append("SIXTEEN = 16")
    path = tmp_path / "sanitized-mbpp.json"
    path.write_text(json.dumps([revised, mbpp_row(601)]), "utf-8")
    task = load_task("mbpp", path)
    questions = [task.split("test")[0], task.split("train")[0]]
    right = ["```python\ndef root(n): return n ** .5\n```", "```\ndef double(n): return 2 * n\n```"]
    wrong = ["```python\ndef root(n): return n\n```", "no program"]
    verifier = CodeTests()
    assert verifier.score(questions * 2, right + wrong) == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (mbpp_row(975), "line 1: task_id 975 is none of the published"),
        (mbpp_row(1, task_id="x"), "line 1: no whole number in column 'task_id'"),
        (mbpp_row(1, code="def other(): pass"), "line 1: the tests call no function"),
        (mbpp_row(1, code="def double("), "line 1: "),
        (mbpp_row(1, test_list="assert"), "line 1: column 'test_list' must hold a list"),
        (mbpp_row(1, test_list=[]), "line 1: the tests call no function"),
    ],
)
def test_wrong_rows_of_mbpp(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_task("mbpp", write(tmp_path / "mbpp.jsonl", [row]))


MMLU = {"question": "2 + 2?", "subject": "algebra", "choices": ["3", "4", "5", "6"], "answer": 1}
PRO = {
    "question_id": 7, "question": "2 + 2?", "options": ["3", "4", "5", "6", "7", "8"],
    "answer": "B", "answer_index": 1, "category": "math",
}  # fmt: skip
ARC = {
    "id": "q1", "question": "2 + 2?", "answerKey": "2",
    "choices": {"text": ["3", "4", "5"], "label": ["1", "2", "3"]},
}  # fmt: skip


@pytest.mark.parametrize(("name", "row"), [("mmlu", MMLU), ("mmlu_pro", PRO), ("arc", ARC)])
def test_multiple_choice_in_each_published_form(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    for split in ("validation", "test"):
        write(tmp_path / f"{split}.jsonl", [row])
    task = load_task(name, tmp_path)
    (question,) = task.split("test")
    assert question.prompt.startswith("2 + 2?\nA. 3\nB. 4\nC. 5")
    assert (question.answer, question.kind) == ("B", "choice")
    answers = [r"\boxed{B}", r"\boxed{\text{(b).}}", r"\boxed{4}", r"\boxed{A}", "B"]
    assert AnswerKey().score([question] * 5, answers) == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert len(task.split("validation")) == 1


def test_multiple_choice_by_subject_and_from_csv(tmp_path: Path) -> None:
    rows = [{**MMLU, "question": f"{n}?", "subject": f"high school {n % 2}"} for n in range(4)]
    task = load_task("mmlu:subjects=High_School_1", write(tmp_path / "t.jsonl", rows))
    assert [q.prompt[:2] for q in task.split("test")] == ["1?", "3?"]
    table = tmp_path / "t.csv"
    table.write_text('question,choices,answer\n"2?","[""1"", ""2""]",B\n', "utf-8")
    assert load_task("mmlu", table).split("test")[0].answer == "B"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"answer": 4}, "the answer 4 is none of the options A, B, C, D"),
        ({"answer": -1}, "the answer -1 is none"),
        ({"answer": None}, "the answer None is none"),
        ({"choices": ["1"]}, "1 options, not 2 to 10"),
        ({"choices": ["1", ""]}, "must be texts"),
        ({"choices": "A, B"}, "column 'choices' must hold a list"),
        ({"question": ""}, "no text in column 'question'"),
    ],
)
def test_wrong_rows_of_multiple_choice(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=f"line 1: .*{complaint}"):
        load_task("mmlu", write(tmp_path / "t.jsonl", [{**MMLU, **change}]))


HOTPOT = {
    "_id": "h1",
    "question": "Who wrote the novel on which the film Brazos is based?",
    "answer": "The Ann Lee",
    "supporting_facts": [["Brazos", 0], ["River Days", 1]],
    "context": [
        ["Oslo", ["Oslo is a city.", " It is in the north."]],
        ["Brazos", ["Brazos is a film based on the novel River Days."]],
        ["River Days", ["River Days is a novel.", " Ann Lee wrote it."]],
        ["Lima", ["Lima is a city."]],
    ],
}


def test_hotpotqa_shows_all_passages_and_compares_as_the_paper_does(tmp_path: Path) -> None:
    path = tmp_path / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps([HOTPOT]), "utf-8")
    (question,) = load_task("hotpotqa", path).split("test")
    assert question.id == "h1"
    assert "River Days: River Days is a novel. Ann Lee wrote it." in question.prompt
    answers = [r"\boxed{ann lee}", r"\boxed{\text{Ann Lee.}}", r"\boxed{Ann}", "Ann Lee"]
    assert AnswerKey().score([question] * 4, answers) == [1.0, 1.0, 0.0, 0.0]


def test_hotpotqa_deals_supporting_passages_to_different_agents(tmp_path: Path) -> None:
    theirs = {
        **HOTPOT,
        "id": "h2",
        "context": {
            "title": [title for title, _ in HOTPOT["context"]],
            "sentences": [sentences for _, sentences in HOTPOT["context"]],
        },
        "supporting_facts": {"title": ["Brazos", "River Days"], "sent_id": [0, 1]},
    }
    del theirs["_id"]
    path = write(
        tmp_path / "test.jsonl",
        [{**HOTPOT, "_id": f"h{n}"} for n in range(20)] + [theirs | {"id": "z"}],
    )
    questions = load_task("hotpotqa:agents=2", path).split("test")
    with_film = set()
    for question in questions:
        assert "Oslo" not in question.prompt
        film = ["Brazos: " in text for text in question.private]
        novel = ["River Days: " in text for text in question.private]
        assert sorted(film) == sorted(novel) == [False, True]
        assert film != novel
        assert sum(text.count("\n") + 1 for text in question.private) == 4
        with_film.add(film.index(True))
    assert with_film == {0, 1}
    env = debate_v0.parallel_env(task="hotpotqa:agents=2", data=path, num_agents=2, split="test")
    observations, _ = env.reset(seed=0)
    assert "Passages that you alone can read:\n" in observations["agent_0"]


def test_hotpotqa_searches_its_context_or_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", [HOTPOT])
    (found,) = load_task("hotpotqa:passages=2", path).split("test")
    assert "Brazos: " in found.prompt
    assert "Lima" not in found.prompt
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "films.txt").write_text("Old films.\n\nThe film Brazos\nis from 1953.\n", "utf-8")
    write(folder / "more.jsonl", [{"title": "Cook", "text": "Soup."}])
    (found,) = load_task(f"hotpotqa:passages=1,folder={folder}", path).split("test")
    assert found.prompt.endswith("Passages:\nfilms: The film Brazos is from 1953.")
    for options, complaint in (
        (f"folder={folder}", "set passages too"),
        ("agents=1", "0 or at least 2"),
        ("passages=-1", "at least 0"),
    ):
        with pytest.raises(ValueError, match=complaint):
            load_task(f"hotpotqa:{options}", path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_task(f"hotpotqa:passages=1,folder={tmp_path}/none", path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"context": "text"}, "column 'context' must hold passages"),
        ({"context": [["t", "text"]]}, "sentences of passage 't' must be texts"),
        ({"supporting_facts": []}, "column 'supporting_facts' must name"),
        ({"answer": "..."}, "gold answer"),
        ({"answer": ""}, "no text in column 'answer'"),
    ],
)
def test_wrong_rows_of_hotpotqa(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"line 1: .*{complaint}"):
        load_task("hotpotqa:agents=2", write(tmp_path / "t.jsonl", [{**HOTPOT, **change}]))


def test_hotpotqa_spares_a_validation_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotpotqa, "NUM_VALIDATION", 2)
    rows = [{**HOTPOT, "_id": f"h{n}", "question": f"Who wrote {n}?"} for n in range(30)]
    write(tmp_path / "train.jsonl", rows[:25])
    write(tmp_path / "dev.jsonl", rows[25:])
    task = load_task("hotpotqa", tmp_path)
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [23, 2, 5]


@pytest.mark.parametrize(
    ("name", "row", "asked"),
    [
        ("math", problem(3), [("EleutherAI/hendrycks_math", "geometry", "test")]),
        ("mbpp", mbpp_row(11), [("google-research-datasets/mbpp", "full", "test")]),
        ("mmlu", MMLU, [("cais/mmlu", "all", "test")]),
        ("mmlu_pro", PRO, [("TIGER-Lab/MMLU-Pro", None, "test")]),
        ("arc", ARC, [("allenai/ai2_arc", "ARC-Challenge", "test")]),
        ("hotpotqa", HOTPOT, [("hotpotqa/hotpot_qa", "distractor", "validation")]),
    ],
)
def test_the_hub_is_asked_when_a_split_is_first_used(
    monkeypatch: pytest.MonkeyPatch, name: str, row: dict[str, Any], asked: list[Any]
) -> None:
    calls = []

    def load_dataset(hub_name: str, config: str | None, split: str) -> list[dict[str, Any]]:
        calls.append((hub_name, config, split))
        once = name != "math" or (config, split) == ("geometry", "test") or split == "train"
        fresh = {"mbpp": {"task_id": {"train": 601, "validation": 511, "prompt": 1}.get(split, 11)}}
        return [{**row, **fresh.get(name, {})}] if once else []

    monkeypatch.delenv("MAPORL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(hub, "hub_answers", lambda address: True)
    task = load_task(name)
    assert calls == []
    assert len(task.split("test")) == 1
    assert set(asked) <= set(calls)


def test_search_ranks_rare_words_and_finds_nothing_for_strange_ones() -> None:
    passages = [Passage("", f"the city of number {n}") for n in range(50)]
    index = PassageIndex([*passages, Passage("Oslo", "the fjord")])
    assert index.search("the FJORD?", 1) == [Passage("Oslo", "the fjord")]
    assert index.search("number 7", 2)[0] == passages[7]
    assert index.search("zebra", 3) == []
    assert index.search("", 3) == []
    assert len(index.search("city", 100)) == 50


def test_a_folder_without_passages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no passage in folder"):
        read_folder(tmp_path)
    write(tmp_path / "a.jsonl", [{"title": "x"}])
    with pytest.raises(ValueError, match="line 1: no text in column 'text'"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "text", "read"),
    [
        ("choice", r"\boxed{(j)}", "J"),
        ("choice", r"\boxed{K}", None),
        ("choice", r"\boxed{AB}", None),
        ("choice", r"\boxed{\textbf{C}}", "C"),
        ("choice", r"\boxed{ı}", None),
        ("choice", r"\boxed{}", None),
        ("phrase", r"\boxed{The  Big-Apple, N.Y.}", "bigapple ny"),
        ("phrase", r"\boxed{The}", "the"),
        ("phrase", r"\boxed{...}", None),
        ("phrase", r"\boxed{" + "x" * 1001 + "}", None),
    ],
)
def test_choices_and_phrases(kind: str, text: str, read: str | None) -> None:
    assert extract_answer(text, kind) == read
