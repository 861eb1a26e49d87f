"""Collab's table: two models that write one message token by token, and the controls.

    .venv/bin/python -m benchmarks.systems.decoding

Two tiny models that each know half of a shop's prices write together. In every step each proposes
its likeliest tokens, and Collab takes the one whose greedy continuation by its own model earns
most. The key scores the continuations, so that this is an oracle; nothing is trained. Controls: the
same scores dealt out to other proposals of the step, a model drawn at random for each token, and a
product of experts of which one reads another question. Accuracy on held-out questions; median and
range over seeds.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch

from benchmarks.compared.over_seeds import spread
from benchmarks.systems.levels import BOTH, Counted, by_engine, collab, written_by
from maporl_agents.config import GameConfig, Sampling, TeamConfig
from maporl_agents.mixtures.collab import Collab, Proposal
from maporl_agents.mixtures.joint_decoding import Choice, drafts_of, write_together
from maporl_agents.mixtures.product_of_experts import ProductOfExperts, product
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.speak import Engine
from maporl_agents.seeding import seed_of
from maporl_agents.training.make_game import questions_of
from maporl_agents.types import Completion, Request
from maporl_env.types import Question


def by_chance(team: Team, asked: Sequence[Request], how: Sampling, seed: int) -> list[Completion]:
    """Write each message greedily, each token by a model drawn at random."""
    drafts = drafts_of(team, asked, BOTH, how, seed)
    noise = random.Random(seed_of(seed, "chance"))

    def choose(some: Sequence[int], logprobs: torch.Tensor) -> Choice:
        rows = torch.arange(len(some))
        drawn = torch.tensor([noise.randrange(len(BOTH)) for _ in some])
        own = logprobs[rows, drawn]
        best = own.max(-1)
        return Choice(best.indices, best.values)

    return write_together(team, drafts, choose)


def misread(team: Team, asked: Sequence[Request], how: Sampling, seed: int) -> list[Completion]:
    """Write by a product of experts whose second model reads the next question in each place."""
    drafts = drafts_of(team, asked, BOTH, how, seed)
    other = drafts_of(team, [*asked[1:], asked[0]], BOTH, how, seed)
    for own, next_one in zip(drafts, other, strict=True):
        own.rows[1].prompt = next_one.rows[1].prompt
    generator = torch.Generator().manual_seed(seed_of(seed, "misread"))

    def choose(some: Sequence[int], logprobs: torch.Tensor) -> Choice:
        combined = product(logprobs, (0.5, 0.5))
        ids = combined.exp().multinomial(1, generator=generator)[:, 0]
        return Choice(ids, combined.gather(1, ids[:, None])[:, 0])

    return write_together(team, drafts, choose)


def deciding(questions: Sequence[Question], counted: Counted, shuffled: bool) -> Engine:
    """Collab by rollouts that the key scores; shuffled, the scores of a step change places."""
    engine = collab(questions, counted)
    assert isinstance(engine, Collab)

    def value(
        team: Team, proposed: Sequence[Proposal], how: Sampling, seed: int
    ) -> Sequence[float]:
        found = list(engine.value(team, proposed, how, seed))
        each = len(BOTH) * engine.proposals  # of one message
        for start in range(0, len(found), each):
            part = found[start : start + each]
            random.Random(seed_of(seed, start)).shuffle(part)
            found[start : start + each] = part
        return found

    return replace(engine, value=value) if shuffled else engine


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    questions = questions_of(GameConfig(), "test")[: args.questions]
    team = make_team(TeamConfig(model=("tiny",), tuning="none"), num_agents=2, num_turns=1, seed=0)
    game = GameConfig(num_agents=1, num_turns=1)
    spent = Counted(team)
    engines: dict[str, Engine] = {
        "model 0 alone": written_by(BOTH[0]),
        "model 1 alone": written_by(BOTH[1]),
        "a model at random for each token": by_chance,
        "product of experts, one of which reads another question": misread,
        "product of experts": ProductOfExperts(BOTH),
        "Collab, scores shuffled within a step": deciding(questions, spent, True),
        "Collab": deciding(questions, spent, False),
    }
    print("| who writes | accuracy | tokens per question |\n|---|---|---|")
    for name, engine in engines.items():
        shares, tokens = [], []
        for seed in args.seeds:
            before = spent.tokens
            scores, own = by_engine(team, game, engine)(questions, seed)
            shares.append(fmean(scores))
            tokens.append((own + spent.tokens - before) / len(questions))
        print(f"| {name} | {spread(shares)} | {fmean(tokens):.1f} |", flush=True)
    print(
        f"\nMedian [range] over seeds {args.seeds}, {len(questions)} questions; "
        f"{platform.machine()}, one thread, {time.process_time() - start:.0f} CPU-s in all."
    )


if __name__ == "__main__":
    main()
