"""Mistakes with several processes: one sentence by rank 0, an error code everywhere, no folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rank_cases import HERE, REPOSITORY, ends, start
from vllm_stand_in import Faults, running

from maporl_agents import tiny

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(900)]

TINY = tiny.checkpoint(0)
FEW = ("--steps", "1", "--questions-per-step", "2", "--eval.questions", "1")
LORA = (*FEW, "--team.tuning", "lora", "--sampling.max-new-tokens", "4")


def served(*urls: str) -> tuple[str, ...]:
    return "--sampling.engine", "vllm", "--sampling.retries", "0", "--sampling.url", *urls


def told_by(processes: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what each process has told."""
    done = ends(processes, seconds=600)
    assert [code for code, _ in done] == [0] * len(done), done
    return [json.loads(text.splitlines()[-1]) for _, text in done]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """What two processes say to each mistake of `SENTENCES`, and the folder of all runs."""
    folder = tmp_path_factory.mktemp("mistakes")
    runs = folder / "runs"
    row = {"prompt": "How many?", "kind": "number"}
    for rank in range(2):
        rows = [
            {"id": f"q{i}", "split": ("train", "test")[i % 2], "answer": str(rank), **row}
            for i in range(8)
        ]
        disk = folder / f"rank-{rank}"
        shutil.copytree(TINY if not rank else tiny.checkpoint(1), disk / "model")
        text = "".join(json.dumps(one) + "\n" for one in rows)
        for file in (disk / "data.jsonl", folder / f"data-{rank}.jsonl"):
            file.write_text(text)
    one_model = (*LORA, "--team.model", str(TINY))
    with (
        running(TINY) as good,
        running(tiny.checkpoint(1)) as other,
        running(TINY, Faults(no_lora=True)) as bare,
        running(TINY, Faults(max_rank=4)) as narrow,
    ):
        commands = {
            "settings": (*FEW, "--seed", "{rank}"),
            "data": (*FEW, "--game.task", f"{folder}/data-{{rank}}.jsonl"),
            "data under one name": (*FEW, "--game.task", "data.jsonl"),
            "base": (*LORA, "--team.model", f"{folder}/rank-{{rank}}/model"),
            "weights under one name": (*LORA, "--team.model", "./model"),
            "a file that one lacks": (*FEW, "--game.task", f"{folder}/model-{{rank}}.jsonl"),
            "too many": (*FEW, "--questions-per-step", "1"),
            "another base": (*one_model, *served(other.url)),
            "one of two with another base": (*one_model, *served(good.url, other.url)),
            "no loading of adapters": (*one_model, *served(bare.url)),
            "a rank beyond the server's": (*one_model, *served(narrow.url)),
            "full tuning": (*FEW, "--team.tuning", "full", *served(good.url)),
            "several bases": (*LORA, *served(good.url)),
            "a lag": (*one_model, *served(good.url), "--sampling.lag", "1"),
            "a spread base": (*one_model, *served(good.url), "--team.shard-base"),
            "nobody there": (*one_model, *served("http://127.0.0.1:9")),
        }
        assert commands.keys() == SENTENCES.keys()
        file = folder / "commands.json"
        words = {n: ("train", "--runs", str(runs / n), *each) for n, each in commands.items()}
        file.write_text(json.dumps(words))
        return told_by(start(2, HERE / "rank_mistakes.py", file)), runs


SENTENCES = {
    "settings": "rank 1 has other setting seed than rank 0",
    "data": "rank 1 has other setting game.task",
    "data under one name": "questions than rank 0",
    "base": "rank 1 has other setting team.model",
    "weights under one name": "rank 1 has other weights of base 0 than rank 0",
    "a file that one lacks": "no such file",
    "too many": "2 processes for 1 debates in a step",
    "another base": "nats per token",
    "one of two with another base": "nats per token",
    "no loading of adapters": "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "a rank beyond the server's": "--max-lora-rank 8",
    "full tuning": "team.tuning='full' has none",
    "several bases": "the agents have several",
    "a lag": "choose sampling.lag=0, or one process",
    "a spread base": "leave shard_base out",
    "nobody there": "cannot be reached",
}


@pytest.mark.parametrize("mistake", SENTENCES)
def test_a_mistake_is_one_sentence_and_ends_all_processes(
    told: tuple[list[dict[str, Any]], Path], mistake: str
) -> None:
    (first, other), runs = told
    (code, said), (there, silent) = first[mistake], other[mistake]
    assert (code, there) == (2, 2)
    assert len(said) == 1
    assert SENTENCES[mistake] in said[0]
    assert silent == []
    assert not list((runs / mistake).glob("*"))


def test_other_code_on_one_rank_is_refused(tmp_path: Path) -> None:
    """By a digest of the source: one comment is enough."""
    copy = tmp_path / "maporl_agents"
    shutil.copytree(REPOSITORY / "agents" / "maporl_agents", copy)
    with (copy / "losses.py").open("a") as file:
        file.write("# another\n")
    commands = tmp_path / "commands.json"
    commands.write_text(json.dumps({"code": ("train", "--runs", str(tmp_path / "runs"), *FEW)}))
    first, other = told_by(start(2, HERE / "rank_mistakes.py", commands, paths={1: tmp_path}))
    assert (first["code"][0], other["code"]) == (2, [2, []])
    [said] = first["code"][1]
    assert "rank 1 has other code (maporl_agents) than rank 0" in said
    assert not (tmp_path / "runs").exists()
