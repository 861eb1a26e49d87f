"""Runs and studies for tests of the HTML report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from maporl_agents.measure.debate_stats import turn_stats
from maporl_env.types import Message, Question, Transcript

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<!--<script>",
    "]]> &lt;b&gt; ${window.hacked = 1} `${window.hacked = 1}`",
    "javascript:window.hacked=1",
    "right \u202eto left\u2066, \u2028 line and \u2029 paragraph, \u200b\ufeff hidden",
    "null \x00 bell \x07 escape \x1b[31m delete \x7f lone \ud800 surrogate",
    "Z\u0351\u036b\u0343" * 50,
    "\\boxed{" * 100,
    "x" * 100_000,
    "",
)


def debate(index: int, text: str, score: float | None = 0.0, turns: int = 2) -> Transcript:
    """Return a debate of two agents; agent_0 says `text`, agent_1 answers right from turn 2 on."""
    agents = ("agent_0", "agent_1")
    messages = [
        message
        for t in range(turns)
        for message in (
            Message(t, "agent_0", text, score),
            Message(t, "agent_1", f"turn {t + 1}: \\boxed{{{7 if t else 6}}}", 1.0 if t else 0.0),
        )
    ]
    return Transcript(Question(f"q/{index}", f"Question {index}?", "7"), agents, tuple(messages))


def make_run(folder: Path, debates: list[Transcript], finished: bool = True) -> Path:
    """Write a run folder as a training run leaves it."""
    (folder / "transcripts").mkdir(parents=True)
    config = {"name": "toy", "seed": 3, "steps": 4, "game": {"task": "toy", "num_agents": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    versions = {"python": "3.12", "packages": {"maporl": "0.1"}, "platform": "P", "commit": None}
    (folder / "versions.json").write_text(json.dumps(versions))
    rows = [
        {"step": s, "score/turn_1": 0.1 * s, "score/turn_2": 0.2 * s, "kl": 0.01, "entropy": 1.0}
        | {"tokens": 60.0, "answers": 12.0}
        for s in range(1, 5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        turns = [asdict(turn) for turn in turn_stats(debates)]
        result = {"turns": turns, "num_questions": len(debates), "num_tokens": 99}
        stage = {"sampled": result, "greedy": result}
        (folder / "results.json").write_text(json.dumps({"before": stage, "after": stage}))
        for name in ("before", "after"):
            lines = [json.dumps({"step": 4, **one.to_dict()}) + "\n" for one in debates]
            (folder / "transcripts" / f"{name}.jsonl").write_text("".join(lines))
    return folder
