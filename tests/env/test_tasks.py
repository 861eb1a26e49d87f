"""Questions by name, file or list; what is wrong is named with file and line."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from maporl_env.answers import NLI_LABELS, read_gold
from maporl_env.tasks import Task, anli, load_task, shopping
from maporl_env.types import Question

OWN = [{"prompt": f"{n} + 1?", "answer": n + 1, "id": f"own/{n}"} for n in range(4)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_built_in_task_keeps_its_test_pairs_out_of_training() -> None:
    task = load_task("shopping")
    train, test = task.split("train"), task.split("test")
    assert (len(train), len(test)) == (29_088, 7_200)

    def pairs(questions: Any) -> set[frozenset[str]]:
        return {frozenset(q.id.split("/")[1].split("-")[1::2]) for q in questions}

    assert pairs(train).isdisjoint(pairs(test))
    assert len({q.id for q in (*train, *test)}) == 36_288
    question = test[0]
    n, first, m, second = question.id.split("/")[1].split("-")
    total = int(n) * shopping.PRICES[first] + int(m) * shopping.PRICES[second]
    assert question.answer == str(total)
    assert load_task("shopping") is task


def test_own_questions_as_jsonl(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "mine.jsonl", OWN))
    assert task.name == "mine"
    assert task.split("train") == task.split("test")
    assert task.split("train")[2] == Question("own/2", "2 + 1?", "3")


def test_own_questions_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('question,answer,kind\n"Is it, or\nnot?",Neutral,nli\n1 + 1?,2,\n', "utf-8")
    first, second = load_task(str(path)).split("train")
    assert (first.prompt, first.kind) == ("Is it, or\nnot?", "nli")
    assert (second.answer, second.kind, second.id) == ("2", "number", "mine/1")


def test_splits_by_folder_and_by_column(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "train.jsonl", OWN[:3])
    write(folder / "dev.jsonl", OWN[3:])
    task = load_task(folder)
    assert (len(task.split("train")), len(task.split("test"))) == (3, 1)
    rows = [{**row, "split": "test" if n == 3 else "train"} for n, row in enumerate(OWN)]
    task = load_task(write(tmp_path / "both.jsonl", rows))
    assert (len(task.split("train")), len(task.split("test"))) == (3, 1)
    task = load_task(write(tmp_path / "test.jsonl", OWN))
    assert task.default_split == "test"
    with pytest.raises(ValueError, match=r"no split 'train'; choose one of \['test'\]"):
        task.split("train")


def test_a_list_of_questions_is_a_task() -> None:
    questions = [Question("a", "p", "1"), Question("b", "p", "neutral", "nli")]
    assert list(load_task(questions).split("train")) == questions
    task = Task("t", {"all": questions})
    assert load_task(task) is task
    assert task.default_split == "all"
    with pytest.raises(ValueError, match="question 'bad': gold answer 'many' is not readable"):
        load_task([*questions, Question("bad", "p", "many")])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prompt": "p", "answer": "1"', "not valid JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('{"prompt": "p"}', "no text in column 'answer'"),
        ('{"answer": "1", "text": "p"}', "no text in column 'question'.*it has answer, text"),
        ('{"prompt": "p", "answer": "several"}', "gold answer 'several' is not readable"),
        ('{"prompt": "p", "answer": null}', "no text in column 'answer'"),
        ('{"prompt": "p", "answer": true}', "no text in column 'answer'"),
        ('{"prompt": "p", "answer": "1", "kind": "poem"}', "unknown answer kind 'poem'"),
        ('{"question": "p", "answer": "so it is\\n#### 1 or 2"}', "gold answer '1 or 2'"),
        ('{"premise": "p", "hypothesis": "h", "label": -1}', "label -1 is none of 0, 1, 2"),
        ('{"prompt": "p", "answer": "1", "id": "own/0"}', "id 'own/0' stands already in .*line 1"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = write(tmp_path / "mine.jsonl", OWN[:2])
    path.write_text(path.read_text("utf-8") + "\n" + line + "\n", "utf-8")
    with pytest.raises(ValueError, match=rf"mine\.jsonl, line 4: .*{complaint}"):
        load_task(path)


def test_wrong_csv_and_wrong_encoding_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("prompt,answer\np,1\nq,2,3\n", "utf-8")
    with pytest.raises(ValueError, match=r"mine\.csv, line 3: .*as many fields"):
        load_task(path)
    path.write_bytes(b"prompt,answer\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_task(path)


@pytest.mark.parametrize(
    ("task", "error", "complaint"),
    [
        ("gsm8", ValueError, r"did you mean 'gsm8k'\?.*shopping, gsm8k, anli"),
        ("nowhere.jsonl", FileNotFoundError, r"no such file: nowhere\.jsonl"),
        ("data/nowhere", FileNotFoundError, "no such file"),
        ("", ValueError, "unknown task"),
        ([], ValueError, "at least one Question"),
        (["p"], ValueError, "at least one Question"),
        (3, ValueError, "a task is a name"),
    ],
)
def test_what_is_no_task_is_refused(task: Any, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        load_task(task)


def test_data_belong_to_a_named_task(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", OWN)
    with pytest.raises(ValueError, match="makes its own questions"):
        load_task("shopping", path)
    with pytest.raises(ValueError, match="data is for a named task"):
        load_task(path, path)
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: nowhere.*'openai/gsm8k'"):
        load_task("gsm8k", "nowhere")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(ValueError, match="holds no question"):
        load_task(empty)
    with pytest.raises(ValueError, match=r"neither \.jsonl nor \.csv"):
        load_task(Path(__file__))


def test_without_the_hub_library_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAPORL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for name in ("gsm8k", "anli"):
        with pytest.raises(ValueError, match=r"pip install 'maporl\[hub\]'"):
            load_task(name)


def test_the_hub_is_asked_for_the_published_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((name, config, split))
        return [{"question": f"{split} {n}?", "answer": f"so\n#### {n}"} for n in range(3)]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    task = load_task("gsm8k", "openai/gsm8k")
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert [q.answer for q in task.split("test")] == ["0", "1", "2"]
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda *a, **k: {}["offline"])
    with pytest.raises(ValueError, match=r"cannot load facebook/anli .*KeyError"):
        load_task("anli", "facebook/anli")


def test_real_gsm8k_with_the_papers_verifier_part(data_dir: Path) -> None:
    task = load_task("gsm8k", data_dir / "gsm8k")
    sizes = {name: len(questions) for name, questions in task.splits.items()}
    assert sizes == {
        "train": 7_473, "test": 1_319, "verifier": 7_463, "first_half": 3_736, "second_half": 3_737,
    }  # fmt: skip
    halves = [{q.id for q in task.split(name)} for name in ("first_half", "second_half")]
    assert halves[0].isdisjoint(halves[1])
    prompts = [{q.prompt for q in task.split(name)} for name in ("train", "test")]
    assert prompts[0].isdisjoint(prompts[1])
    first = task.split("test")[0]
    assert (first.id, first.answer) == ("gsm8k/test/0", "18")
    assert "####" not in first.prompt
    assert all(isinstance(read_gold(q.answer, q.kind), int) for q in task.split("test"))
    assert load_task(data_dir / "gsm8k" / "test.jsonl").split("test")[0].answer == "18"


def test_real_gsm8k_with_tinygsm_has_disjoint_verifier_and_rl_parts(
    data_dir: Path, tmp_path: Path
) -> None:
    real = load_task("gsm8k", data_dir / "gsm8k")
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").symlink_to(data_dir / "gsm8k" / f"{name}.jsonl")
    known = [{"question": q.prompt, "answer": q.answer} for q in real.split("verifier")[:5]]
    new = [{"question": f"{n} and {n}?", "answer": str(2 * n)} for n in range(13_000)]
    write(tmp_path / "tinygsm.jsonl", known + new)
    task = load_task("gsm8k", tmp_path)
    assert len(task.split("rl")) == 12_800
    assert task.split("rl")[0].prompt == "0 and 0?"
    prompts = [{q.prompt for q in task.split(name)} for name in ("rl", "verifier")]
    assert prompts[0].isdisjoint(prompts[1])


def test_real_anli(data_dir: Path) -> None:
    for task in (
        load_task("anli", data_dir / "anli" / "dev_r3.jsonl"),
        load_task(data_dir / "anli" / "dev_r3.jsonl"),
    ):
        questions = task.split("test")
        assert len(questions) == 1_198
        assert {q.answer for q in questions} == set(NLI_LABELS)
        assert "entailment, neutral or contradiction" in task.template.instruction
        row = json.loads((data_dir / "anli" / "dev_r3.jsonl").open(encoding="utf-8").readline())
        assert questions[0].id == row["uid"]
        assert row["premise"] in questions[0].prompt
        assert row["hypothesis"] in questions[0].prompt
        assert row["reason"] not in questions[0].prompt


def test_anli_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as the hub has them; the paper's parts are cut from its training set."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> list[dict[str, Any]]:
        asked.append((name, config, split))
        row = {"premise": "It rains.", "hypothesis": "It is dry.", "reason": ""}
        return [{**row, "uid": f"{split} {n}", "label": n % 3} for n in range(5)]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(anli, "NUM_VERIFIER", 2)
    monkeypatch.setattr(anli, "NUM_RL", 2)
    task = load_task("anli", "facebook/anli")
    assert asked == [("facebook/anli", None, "train_r3"), ("facebook/anli", None, "test_r3")]
    assert {name: [q.id[-1] for q in part] for name, part in task.splits.items()} == {
        "train": list("01234"), "test": list("01234"), "verifier": ["0", "1"], "rl": ["2", "3"],
    }  # fmt: skip
    first = task.split("test")[0]
    assert (first.id, first.answer, first.kind) == ("test_r3 0", "entailment", "nli")
    assert "Premise: It rains.\nHypothesis: It is dry." in first.prompt
    assert "entailment, neutral or contradiction" in task.template.instruction


def test_anli_parts_of_the_paper_are_disjoint(tmp_path: Path) -> None:
    rows = [{"premise": f"p{n}", "hypothesis": "h", "label": n % 3} for n in range(23_000)]
    write(tmp_path / "train_r3.jsonl", rows)
    write(tmp_path / "test_r3.jsonl", rows[:6])
    task = load_task("anli", tmp_path)
    verifier, rl = task.split("verifier"), task.split("rl")
    assert (len(verifier), len(rl), len(task.split("test"))) == (10_000, 12_800, 6)
    assert {q.id for q in verifier}.isdisjoint({q.id for q in rl})
    assert rl[0].prompt.startswith("Premise: p10000\n")
    assert [q.answer for q in task.split("test")] == [*NLI_LABELS, *NLI_LABELS]
