"""Questions by name, file or list; what is wrong is named with file and line."""

from __future__ import annotations

import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from maporl_env.answers import NLI_LABELS, read_gold
from maporl_env.tasks import Task, anli, files, hub, load_task, shopping
from maporl_env.types import Question

OWN = [{"prompt": f"{n} + 1?", "answer": n + 1, "id": f"own/{n}"} for n in range(4)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_built_in_task_keeps_its_test_pairs_out_of_training() -> None:
    task = load_task("shopping")
    parts = {name: task.split(name) for name in ("train", "validation", "test")}
    sizes = {name: len(questions) for name, questions in parts.items()}
    assert sizes == {"train": 25_488, "validation": 3_600, "test": 7_200}

    def pairs(questions: Any) -> set[frozenset[str]]:
        return {frozenset(q.id.split("/")[1].split("-")[1::2]) for q in questions}

    assert sum(len(pairs(part)) for part in parts.values()) == 2_016  # each pair once
    assert len(set().union(*map(pairs, parts.values()))) == 2_016
    test = parts["test"]
    assert len({q.id for part in parts.values() for q in part}) == 36_288
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
    monkeypatch.setattr(hub, "hub_answers", lambda address: True)
    task = load_task("gsm8k", "openai/gsm8k")
    assert asked == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert [q.answer for q in task.split("test")] == ["0", "1", "2"]
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda *a, **k: {}["offline"])
    with pytest.raises(ValueError, match=r"cannot load facebook/anli .*KeyError"):
        load_task("anli", "facebook/anli")


def test_a_hub_that_is_silent_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*arguments: object, **options: object) -> object:
        assert library.config.HF_HUB_OFFLINE
        raise ConnectionError("no cache")

    config = types.SimpleNamespace(HF_HUB_OFFLINE=False)
    library = types.SimpleNamespace(load_dataset=load_dataset, config=config)
    constants = types.SimpleNamespace(HF_HUB_OFFLINE=False)
    monkeypatch.setitem(sys.modules, "datasets", library)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)  # type: ignore[arg-type]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ValueError, match=r"is not on this machine, and the hub .*:9\) does not"):
        load_task("anli", "facebook/anli")
    assert constants.HF_HUB_OFFLINE


def test_real_gsm8k_with_the_papers_verifier_part(data_dir: Path) -> None:
    task = load_task("gsm8k", data_dir / "gsm8k")
    sizes = {name: len(questions) for name, questions in task.splits.items()}
    assert sizes == {
        "train": 6_973, "validation": 500, "test": 1_319,
        "verifier": 7_463, "first_half": 3_486, "second_half": 3_487,
    }  # fmt: skip
    halves = [{q.id for q in task.split(name)} for name in ("first_half", "second_half")]
    assert halves[0].isdisjoint(halves[1])
    prompts = [{q.prompt for q in task.split(name)} for name in ("train", "validation", "test")]
    assert len(set().union(*prompts)) == sum(map(len, prompts)) == 7_473 + 1_319
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
    monkeypatch.setattr(hub, "hub_answers", lambda address: True)
    monkeypatch.setattr(anli, "NUM_VERIFIER", 2)
    monkeypatch.setattr(anli, "NUM_RL", 2)
    task = load_task("anli", "facebook/anli")
    assert asked == [("facebook/anli", None, "train_r3"), ("facebook/anli", None, "test_r3")]
    assert {name: [q.id[-1] for q in part] for name, part in task.splits.items()} == {
        "train": list("01234"), "validation": list("01234"), "test": list("01234"),
        "verifier": ["0", "1"], "rl": ["2", "3"],
    }  # fmt: skip
    assert asked[2] == ("facebook/anli", None, "dev_r3")  # read when it was looked at
    assert task.split("validation")[0].id == "dev_r3 0"
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


def test_anli_takes_a_validation_set_from_training_where_the_development_set_is_the_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("NUM_VERIFIER", 5), ("NUM_RL", 4), ("NUM_VALIDATION", 3)):
        monkeypatch.setattr(anli, name, size)
    rows = [{"premise": f"p{n}", "hypothesis": "h", "label": n % 3} for n in range(20)]
    write(tmp_path / "train_r3.jsonl", rows[:14])
    write(tmp_path / "dev_r3.jsonl", rows[14:])
    task = load_task("anli", tmp_path)
    parts = [task.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [11, 3, 6]
    assert len({q.prompt for part in parts for q in part}) == 20
    used = {q.id for name in ("verifier", "rl") for q in task.split(name)}
    assert used.isdisjoint(q.id for q in parts[1])


MARKS = [
    ("train", "train"), ("Train", "train"), (" TRAINING ", "train"), ("TEST", "test"),
    ("held-out", "test"), ("Validation", "validation"), ("val", "validation"),
    ("dev", "validation"), ("eval", "validation"), ("fold 3", "fold 3"), (2, "2"),
]  # fmt: skip


@pytest.mark.parametrize(("mark", "name"), MARKS)
@pytest.mark.parametrize("column", ["split", "Split", " SPLIT"])
def test_a_split_is_known_by_its_usual_spellings(
    tmp_path: Path, mark: Any, name: str, column: str
) -> None:
    rows = [{**OWN[0], column: mark}, {**OWN[1], column: "train"}]
    task = load_task(write(tmp_path / "mine.jsonl", rows))
    assert "0 + 1?" in {q.prompt for q in task.split(name)}
    others = set(task.splits) - {name} - ({"dev", "test"} if name == "validation" else set())
    assert all("0 + 1?" not in {q.prompt for q in task.split(other)} for other in others)


@pytest.mark.parametrize("blank", [None, "", "  "])
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("large", [0, 1 << 25])
def test_a_row_without_a_split_among_others_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: Any, place: int, large: int
) -> None:
    """No row marked "test" is ever trained on, whatever row lacks a mark, in memory or on disk."""
    monkeypatch.setattr(files, "LARGE_BYTES", large)
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    rows = [{**row, "split": "test" if n else "train"} for n, row in enumerate(OWN)]
    rows[place]["split"] = blank
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(ValueError, match=rf"mine\.jsonl, line [{place + 1}{place + 2}]: .*'split'"):
        load_task(path)
    if large:
        with pytest.raises(ValueError, match=rf"mine\.jsonl, line {place + 1}: no text in column"):
            load_task(write(path, [*rows[:place], {"split": "train"}, *rows[place + 1 :]]))


def test_a_csv_with_a_gap_and_a_misspelled_split_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("prompt,answer,split\np,1,test\nq,2,\n", "utf-8")
    with pytest.raises(ValueError, match=r"mine\.csv, line 3: no split in column 'split'"):
        load_task(path)
    path.write_text("prompt,answer,split\np,1,test\nq,2,trian\n", "utf-8")
    with pytest.raises(ValueError, match=r"line 3: unknown split 'trian' \(did you mean 'train'"):
        load_task(path)
    path.write_text("prompt,answer,split\np,1,\nq,2,\n", "utf-8")  # a column without a word
    assert load_task(path).split("train") == load_task(path).split("test")


@pytest.mark.parametrize("large", [0, 1 << 25])
def test_a_row_of_a_folder_may_not_contradict_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", large)
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "my_train.jsonl", [{**row, "split": "Train"} for row in OWN[:2]])
    write(folder / "eval.jsonl", OWN[2:])
    task = load_task(folder)
    assert [len(task.split(name)) for name in ("train", "validation", "dev", "test")] == [2] * 4
    write(folder / "eval.jsonl", [OWN[2], {**OWN[3], "split": "train"}])
    with pytest.raises(ValueError, match=r"eval\.jsonl, line 2: .*'train'.*name says 'validation'"):
        load_task(folder)


def test_what_is_measured_on_is_never_the_training_split_of_a_task_with_others(
    tmp_path: Path,
) -> None:
    def task(*splits: str) -> Task:
        return Task("t", {split: [Question("a", "p", "1")] for split in splits})

    assert task("train", "validation", "test").measured_split == "test"
    assert task("train", "validation").measured_split == "validation"
    assert task("train").measured_split == "train"
    with pytest.raises(ValueError, match=r"neither a split 'test' .*\['easy', 'train'\]"):
        _ = task("train", "easy").measured_split


def test_texts_are_divided_by_their_column_split(tmp_path: Path) -> None:
    rows = [{"text": f"post {n}", "split": "dev" if n == 3 else "train"} for n in range(20)]
    task = load_task("summaries", write(tmp_path / "posts.jsonl", rows))
    assert [q.prompt for q in task.split("validation")] == ["post 3"]
    assert "post 3" not in {q.prompt for q in task.split("train")}
    with pytest.raises(ValueError, match=r"line 2: no split in column 'split'"):
        load_task("summaries", write(tmp_path / "posts.jsonl", [rows[0], {"text": "x"}]))


DEEP = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize("large", [0, 1 << 25])
@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (DEEP, "nested too deeply"),
        ('{"prompt": "p", "answer": ' + "7" * 5_000 + "}", "not valid JSON"),
        ('{"prompt": "p", "answer": "' + "7" * 5_000 + '"}', "gold answer '7777"),
    ],
)
def test_what_python_cannot_read_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int, line: str, complaint: str
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", large)
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "mine.jsonl", OWN[:1])
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    with pytest.raises(ValueError, match=rf"mine\.jsonl, line 2: .*{complaint}") as refused:
        load_task(path)
    assert len(str(refused.value)) < 500


def test_a_blank_file_is_named_however_large_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", 1)
    for text in ("\n" * 3, " \n\t\n"):
        (tmp_path / "blank.jsonl").write_text(text, "utf-8")
        with pytest.raises(ValueError, match="holds no question"):
            load_task(tmp_path / "blank.jsonl")


def test_a_long_text_is_read_from_csv_and_an_open_quote_is_named_where_it_begins(
    tmp_path: Path,
) -> None:
    path, text = tmp_path / "mine.csv", "row of words " * 16_000
    path.write_text(f'prompt,answer\n"{text}",3\n', "utf-8")
    assert load_task(path).split("train")[0].prompt == text
    path.write_text('prompt,answer\np,1\n"q,2\n' + "r,3\n" * 50, "utf-8")
    with pytest.raises(ValueError, match=r"mine\.csv, line 3: not valid CSV"):
        load_task(path)


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b'{"prompt": "p", "answer": 1}\n' * 400))
    data[20:24] = b"\xff\xff\xff\xff"
    (tmp_path / "mine.jsonl.gz").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="is damaged"):
        list(files.read_rows(tmp_path / "mine.jsonl.gz"))
