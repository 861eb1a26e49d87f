"""Questions from JSON Lines and CSV; mistakes are named with file and line."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from maporl_env.tasks import files, load_task
from maporl_env.types import Question

from .task_rows import OWN, write


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


def assert_refused(path: Path, content: bytes, complaint: str) -> None:
    """Write a file and check that loading it raises the complaint."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        load_task(path)


def test_wrong_csv_and_wrong_encoding_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    assert_refused(path, b"prompt,answer\np,1\nq,2,3\n", r"mine\.csv, line 3: .*as many fields")
    assert_refused(path, b"prompt,answer\n\xff\xfe,1\n", "not UTF-8")


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


@pytest.mark.parametrize("large", [0, 1 << 25])
@pytest.mark.parametrize("column", ["subset", "Set", "fold", "partition"])
def test_names_of_splits_in_another_column_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, large: int
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", large)
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    marks = ["train", None, "Held-out", "dev"]
    rows = [{**row, column: mark} for row, mark in zip(OWN, marks, strict=True)]
    complaint = rf"line 1: column '{column}' .*Held-out, dev, train.*: rename it 'split', or remove"
    with pytest.raises(ValueError, match=complaint):
        load_task(write(tmp_path / "mine.jsonl", rows))
    with pytest.raises(ValueError, match=complaint):
        load_task(write(tmp_path / "train.jsonl", rows))
    rows[3][column] = "easy"
    assert len(load_task(write(tmp_path / "mine.jsonl", rows)).split("train")) == 4
    rows = [{**row, column: "test"} for row in OWN]
    assert len(load_task(write(tmp_path / "test.jsonl", rows)).split("test")) == 4
    with pytest.raises(ValueError, match=complaint.replace("Held-out, dev, train", "test")):
        load_task(write(tmp_path / "all.jsonl", rows))
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "train.jsonl", rows)
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 1: column '{column}'"):
        load_task(folder)


def test_names_of_splits_in_another_column_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = b"prompt,answer,subset\np,1,train\nq,2,test\n"
    assert_refused(path, rows, r"mine\.csv, line 2: column 'subset' .*\(test, train\)")
    path.write_text("prompt,answer,subset,split\np,1,train,train\nq,2,test,test\n", "utf-8")
    assert len(load_task(path).split("test")) == 1


@pytest.mark.parametrize(
    "pair", [("split", "split"), ("split", "Split"), ("answer", "answer"), ("question", "Question")]
)
@pytest.mark.parametrize("large", [0, 1 << 25])
def test_two_columns_for_one_field_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str], large: int
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", large)
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path / "cache"))
    row = {"question": "p", "answer": "1", "split": "train"}
    del row[pair[0]]
    complaint = rf"two columns '{pair[0]}' and '{pair[1]}' for one field: keep one"
    path = tmp_path / "mine.csv"
    path.write_text(",".join([*row, *pair]) + "\n" + ",".join([*row.values(), "1", "2"]), "utf-8")
    with pytest.raises(ValueError, match=rf"mine\.csv, line 1: {complaint}"):
        load_task(path)
    path = tmp_path / "mine.jsonl"
    fields = ", ".join(f'"{k}": "{v}"' for k, v in [*row.items(), (pair[0], "1"), (pair[1], "2")])
    path.write_text("\n{" + fields + ', "more": {"answer": 1}}\n', "utf-8")
    with pytest.raises(ValueError, match=rf"mine\.jsonl, line 2: {complaint}"):
        load_task(path)


def test_an_object_within_a_row_may_say_what_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "p", "answer": 1, "x": {"answer": 1, "answer": 2}}\n', "utf-8")
    assert load_task(path).split("train")[0].answer == "1"


def test_compressed_files_of_a_folder_are_read(tmp_path: Path) -> None:
    write(tmp_path / "my_train.jsonl", OWN)
    packed = tmp_path / "my_test.csv.gz"
    packed.write_bytes(gzip.compress(b"prompt,answer\np,1\n"))
    task = load_task(tmp_path)
    assert (len(task.split("train")), len(task.split("test"))) == (4, 1)
    assert set(load_task(packed).splits) == {"test"}
    (tmp_path / "my_test.csv").write_text("prompt,answer\np,1\n", "utf-8")
    with pytest.raises(ValueError, match=r"my_test\.csv and my_test\.csv\.gz .*: remove one"):
        load_task(tmp_path)


@pytest.mark.parametrize(
    "name", ["more.json", "test.tsv", "validation-0.parquet", "TRAIN.XLSX", "test.json.gz"]
)
def test_a_file_of_a_folder_in_a_format_that_is_not_read_is_named(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("?", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=f"there is {re.escape(name)}: convert it to"):
        load_task(tmp_path)
    write(tmp_path / "train.jsonl", OWN[:2])
    with pytest.raises(ValueError, match=f"{re.escape(name)} would not be read: convert it to"):
        load_task(tmp_path)
    assert len(load_task("anli", tmp_path).split("train")) == 2  # a published set may have more


def test_other_files_may_lie_beside_the_data(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", OWN[:2])
    for name in ("README.md", "LICENSE", "notes.txt", ".hidden.json", "code.py"):
        (tmp_path / name).write_text("?", encoding="utf-8")
    (tmp_path / "old.json").mkdir()
    assert len(load_task(tmp_path).split("train")) == 2


def test_a_data_file_of_a_folder_that_tells_no_split_is_named(tmp_path: Path) -> None:
    write(tmp_path / "latest.jsonl", OWN)
    (tmp_path / "notes.txt").write_text("no data", "utf-8")
    with pytest.raises(FileNotFoundError, match=r"no train or test file .*there is latest\.jsonl"):
        load_task(tmp_path)
    write(tmp_path / "train.jsonl", OWN)
    (tmp_path / "more.csv.gz").write_bytes(gzip.compress(b"prompt,answer\np,1\n"))
    with pytest.raises(ValueError, match=r"name of latest\.jsonl, more\.csv\.gz: rename it"):
        load_task(tmp_path)


def test_tinygsm_may_lie_beside_gsm8k(tmp_path: Path) -> None:
    for name in ("train", "test", "tinygsm"):
        write(tmp_path / f"{name}.jsonl", [{"question": f"{name}?", "answer": "#### 1"}])
    assert len(load_task("gsm8k", tmp_path).split("test")) == 1


def test_columns_are_known_in_any_capitalisation(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("Id,Question, ANSWER,Kind\nfirst,Is it?,neutral,nli\n", "utf-8")
    assert list(load_task(path).split("train")) == [Question("first", "Is it?", "neutral", "nli")]
    path.write_text("Premise,Hypothesis,Label,UID\np,h,e,u\n", "utf-8")
    assert load_task(path).split("train")[0].id == "u"


def test_an_id_in_two_splits_of_a_file_is_refused(tmp_path: Path) -> None:
    rows = [{**OWN[0], "id": 7, "split": split} for split in ("train", "test")]
    with pytest.raises(ValueError, match=r"line 2: id '7' stands already in .*line 1"):
        load_task(write(tmp_path / "mine.jsonl", rows))
