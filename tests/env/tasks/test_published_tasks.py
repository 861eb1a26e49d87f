"""GSM8K and ANLI, from files and from the hub."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from maporl_env.answers import NLI_LABELS, read_gold
from maporl_env.tasks import hub, load_task
from maporl_env.tasks.published import anli

from .task_rows import write


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
