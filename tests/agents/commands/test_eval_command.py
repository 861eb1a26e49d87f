"""``maporl eval`` over real GSM8K questions with several families of models; ``maporl play``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from miniatures import CHAT_TEMPLATE, make_tokenizer, save_miniature

from maporl_agents.cli import main
from maporl_agents.commands import chosen_team
from maporl_agents.play import speak
from maporl_agents.play.local_engine import complete
from maporl_env.tasks import load_task

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def threads_as_they_are(monkeypatch) -> None:
    """Commands spread over the cores; tests share them."""
    monkeypatch.setattr(chosen_team, "share_cores", lambda num_bases: None)


@pytest.fixture(scope="module")
def gsm8k(data_dir: Path) -> Path:
    file = data_dir / "gsm8k" / "test.jsonl"
    if not file.is_file():
        pytest.skip(f"no GSM8K: {file} is missing")
    return file


@pytest.fixture(scope="module")
def models(gsm8k: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each family, its BPE trained on the questions; Qwen2's has a template."""
    questions = [q.prompt for q in load_task("gsm8k", gsm8k).split("test")[:300]]
    made = {}
    for family in ("llama", "qwen2", "gpt2"):
        template = CHAT_TEMPLATE if family == "qwen2" else None
        tokenizer = make_tokenizer(template=template, corpus=questions, size=800)
        made[family] = save_miniature(tmp_path_factory.mktemp(family), family, tokenizer)
    return made


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["eval", "--task", "gsm8k", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_debate_over_gsm8k(gsm8k: Path, models, family: str, capsys, tmp_path: Path) -> None:
    out = tmp_path / "results" / "eval.json"
    code = run(
        *("--data", gsm8k, "--model", models[family], "--agents", 3, "--turns", 3),
        *("--limit", 4, "--max-new-tokens", 12, "--out", out),
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "gsm8k, 4 questions" in printed.out
    results = json.loads(out.read_text())
    for decoding in ("sampled", "greedy"):
        assert len(results[decoding]["turns"]) == 3
        assert results[decoding]["num_questions"] == 4
        assert 36 <= results[decoding]["num_tokens"] <= 36 * 12
        for turn in results[decoding]["turns"]:
            assert len(turn["accuracy"]) == 3
            assert 0 <= turn["vote"] <= 1
    transcripts = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert len(transcripts) == 4
    assert all(len(transcript["messages"]) == 9 for transcript in transcripts)


def test_a_prompt_beyond_the_window_is_one_sentence(gsm8k: Path, models, capsys) -> None:
    """GPT-2 has 1,024 positions; it says so, and how to stay within them."""
    code = run(
        *("--data", gsm8k, "--model", models["gpt2"], "--agents", 2, "--turns", 2),
        *("--limit", 2, "--max-new-tokens", 1000),
    )
    printed = capsys.readouterr()
    assert code == 2
    assert "window of 1024 tokens" in printed.err
    assert "lower --max-new-tokens" in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--model", "no such model!"], "cannot load"),
        (["--model", "a", "b", "c"], "3 models for 2 agents"),
        (["--limit", "0"], "--limit is the number of questions"),
        (["--max-new-tokens", "-1"], "max_new_tokens must be at least 1"),
    ],
)
def test_mistakes_end_with_one_sentence(gsm8k: Path, capsys, arguments, match: str) -> None:
    assert run("--data", gsm8k, *arguments) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.startswith("maporl: ")
    assert error.count("\n") == 1


def test_a_played_debate_carries_ids_too(checkpoint, monkeypatch, capsys) -> None:
    """Each agent's next prompt opens with its last one and what it then wrote."""
    rows: dict[str, tuple[int, ...]] = {}

    def watched(team, asked, *arguments):
        completions = complete(team, asked, *arguments)
        for request, one in zip(asked, completions, strict=True):
            before = rows.get(request.policy, ())
            assert request.prompt[: len(before)] == before
            rows[request.policy] = request.prompt + one.ids
        return completions

    monkeypatch.setattr(speak, "complete", watched)
    with pytest.raises(SystemExit) as stop:
        main(["play", "--model", str(checkpoint("llama")), "--turns", "3", "--max-new-tokens", "5"])
    assert stop.value.code == 0
    assert set(rows) == {"agent_0", "agent_1"}
    assert "vote:" in capsys.readouterr().out
