"""A product of experts, ours and that of modelco's published package: same prompts, same tokens.

    python -m benchmarks.systems.fused_logits  # makes modelco's environment, once (--envs)
    python -m benchmarks.systems.fused_logits --python PYTHON  # which can import its package

modelco (PyPI, "When One LLM Drools") averages the logits of several models before each token. The
softmax of a mean of logits is the normalised geometric mean of the distributions, which is our
product of experts with equal weights, so that both should write the same words. Two tiny models
write greedily, each of which knows half of a shop's prices. Ours in float32; modelco as published,
which loads all models as bfloat16, and once with its models turned into float32. In the control
modelco is given model 0 alone. `scripts/test_bridges.sh modelco` tests the same in an environment
of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.compared import environments as envs
from benchmarks.systems.levels import BOTH, LIMIT, right, sampling
from maporl_agents.config import GameConfig, TeamConfig
from maporl_agents.mixtures.product_of_experts import ProductOfExperts
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.types import Request
from maporl_env.types import Question

GAME = GameConfig(num_agents=1, num_turns=1)
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Template of tokenizers without one: the prompt as it is."""


def save_models(team: Team, folder: Path) -> list[str]:
    """Write each model of a team as a folder that transformers can load; return their paths."""
    paths = []
    for name in BOTH:
        base, path = team.base_of(name), folder / name
        base.model.save_pretrained(path)
        tokenizer = base.chat.tokenizer
        before = tokenizer.chat_template
        tokenizer.chat_template = before or PLAIN
        tokenizer.save_pretrained(path)
        tokenizer.chat_template = before
        paths.append(str(path))
    return paths


def ours(
    team: Team, prompts: Sequence[str], policies: tuple[str, ...] = BOTH
) -> tuple[list[str], float]:
    """Return what the policies write together, and the CPU seconds that it took."""
    chat = team.base_of(BOTH[0]).chat
    asked = [
        Request(BOTH[0], chat.prompt_ids((("user", prompt),)), 0, place)
        for place, prompt in enumerate(prompts)
    ]
    how = replace(sampling(), temperature=0.0)
    start = time.process_time()
    written = ProductOfExperts(policies)(team, asked, how, 0)
    return [one.text for one in written], time.process_time() - start


def theirs(python: Path, models: list[str], prompts: Sequence[str], float32: bool) -> Any:
    """Return modelco's messages and seconds."""
    script = Path(__file__).parents[1] / "compared" / "peer_modelco.py"
    work = {"models": models, "prompts": list(prompts), "limit": LIMIT, "float32": float32}
    command = [str(python), str(script), json.dumps(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"modelco failed: {done.stderr.strip().splitlines()[-1]:.300}")
    return json.loads(done.stdout.splitlines()[-1])


def prompts_of(questions: Sequence[Question]) -> list[str]:
    """Return the text that a model reads of each question."""
    debates = debates_of(GAME, len(questions))
    debates.reset(questions=questions)
    return [str(prompt.text) for prompt in debates.prompts()]


def tokens(team: Team, texts: Sequence[str]) -> float:
    """Return the mean number of tokens of some texts, their ends included."""
    chat = team.base_of(BOTH[0]).chat
    return fmean(len(chat.encode(text)) + 1 for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", type=Path, default=envs.USUAL_FOLDER)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--questions", type=int, default=60)
    args = parser.parse_args()
    python = args.python or envs.python_of(envs.MODELCO, args.envs)
    torch.set_num_threads(1)
    team = make_team(TeamConfig(model=("tiny",), tuning="none"), num_agents=2, num_turns=1, seed=0)
    questions: Sequence[Question] = questions_of(GAME, "test")[: args.questions]
    prompts = prompts_of(questions)
    own, seconds = ours(team, prompts)
    found = {"MAPoRL, product of experts, float32": (own, seconds)}
    with TemporaryDirectory() as folder:
        models = save_models(team, Path(folder))
        for title, float32 in (("as published, bfloat16", False), ("in float32", True)):
            told = theirs(python, models, prompts, float32)
            found[f"modelco, logit fusion, {title}"] = told["texts"], told["cpu_seconds"]
        told = theirs(python, models[:1], prompts, True)
        found["modelco, model 0 alone, in float32"] = told["texts"], told["cpu_seconds"]
    print("| who | right | words as ours | tokens per question | CPU-s |\n|---|---|---|---|---|")
    for name, (texts, spent) in found.items():
        scores = fmean(right(q, text) for q, text in zip(questions, texts, strict=True))
        same = fmean(a.strip() == b.strip() for a, b in zip(own, texts, strict=True))
        written = tokens(team, texts)
        print(f"| {name} | {scores:.3f} | {same:.3f} | {written:.1f} | {spent:.2f} |")
    print(
        f"\n{len(questions)} questions of shopping, greedy, at most {LIMIT} tokens each; "
        f"{platform.machine()}, one thread, {envs.version_of(python, 'modelco')} of modelco."
    )


if __name__ == "__main__":
    main()
