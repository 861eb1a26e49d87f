"""Untrained ways to make one message of several models, level by level, on one set of questions.

    python -m benchmarks.systems.levels [--questions 100] [--seeds 0 1 2] [--json FILE]

Task shopping, where each of the two built-in models knows half of the prices. One message per
question, sampled at temperature 1, scored by the key. Tokens are all that were generated for a
question, rollouts included. The router looks at the validation split, never at the test questions.
Weights are merged of two adapters that were trained apart, on sums of coins (task coins).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from rich.console import Console

from benchmarks.compared.over_seeds import keep
from maporl_agents.config import GameConfig, Sampling, TeamConfig, TrainConfig
from maporl_agents.mixtures.collab import Collab, Rollouts
from maporl_agents.mixtures.merged_adapters import merge
from maporl_agents.mixtures.product_of_experts import ProductOfExperts
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.local_engine import complete
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import Engine
from maporl_agents.records.checkpoint_folder import latest
from maporl_agents.seeding import seed_of
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.types import Completion, Request
from maporl_env.answers import answers_equal, extract_answer, read_gold
from maporl_env.bridges.calls import Cascade, VerifierRouter
from maporl_env.intervals import share_of
from maporl_env.types import Question
from maporl_env.verifiers import AnswerKey

LIMIT = 32
BOTH = ("agent_0", "agent_1")
Method = Callable[[Sequence[Question], int], tuple[list[float], int]]
"""Takes questions and a seed; returns the score of each message, and the tokens of all."""


class Counted:
    """An engine that counts what a team generates; also a speaker, by the policy of one agent."""

    def __init__(self, team: Team, engine: Engine = complete) -> None:
        self.team, self.engine, self.tokens = team, engine, 0

    def __call__(
        self, team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        written = self.engine(team, asked, sampling, seed)
        self.tokens += sum(len(one.ids) for one in written)
        return written

    def speaker(self, agent: int, seed: int) -> Callable[[Sequence[str]], list[str]]:
        """Return an agent as a function of prompts."""
        policy, calls = self.team.policy(agent, 0), iter(range(10**6))
        chat = self.team.base_of(policy).chat

        def speak(prompts: Sequence[str]) -> list[str]:
            asked = [
                Request(policy, chat.prompt_ids((("user", prompt),)), agent, place)
                for place, prompt in enumerate(prompts)
            ]
            return [
                one.text for one in self(self.team, asked, sampling(), seed_of(seed, next(calls)))
            ]

        return speak


def sampling() -> Sampling:
    return Sampling(max_new_tokens=LIMIT, model_temperature=False)


def right(question: Question, text: str) -> float:
    key = read_gold(question.answer, question.kind)
    return float(answers_equal(extract_answer(text, question.kind), key))


def by_engine(team: Team, game: GameConfig, engine: Engine) -> Method:
    """One message per question, written by an engine for agent 0."""

    def method(questions: Sequence[Question], seed: int) -> tuple[list[float], int]:
        counted = Counted(team, engine)
        debates = debates_of(game, len(questions))
        rollouts = play(team, debates, questions, sampling(), seed=seed, engine=counted)
        texts = [rollout.transcript.messages[-1].text for rollout in rollouts]
        return [right(q, text) for q, text in zip(questions, texts, strict=True)], counted.tokens

    return method


def written_by(policy: str) -> Engine:
    """One policy that writes every message."""
    return lambda team, asked, how, seed: complete(
        team, [replace(request, policy=policy) for request in asked], how, seed
    )


def collab(questions: Sequence[Question], counted: Counted) -> Engine:
    """Collab with greedy rollouts that the key scores: an oracle, as best of N by the key is."""

    def score(requests: Sequence[Request], texts: Sequence[str]) -> list[float]:
        pairs = zip(requests, texts, strict=True)
        return [right(questions[request.debate], text) for request, text in pairs]

    def value(team: Team, proposed, how: Sampling, seed: int):  # type: ignore[no-untyped-def]
        counted.tokens += sum(LIMIT - len(one.ids) for one in proposed)  # at most
        return Rollouts(score)(team, proposed, replace(how, temperature=0.0), seed)

    return Collab(BOTH, value, proposals=3)


def calls(team: Team, game: GameConfig, made: Callable[..., object]) -> Method:
    """One message per question by a speaker that is made of the two members."""

    def method(questions: Sequence[Question], seed: int) -> tuple[list[float], int]:
        counted = Counted(team)
        debates = debates_of(game, len(questions))
        debates.reset(questions=questions)
        members = [counted.speaker(agent, seed_of(seed, agent)) for agent in (0, 1)]
        speaker = made(members)
        counted.tokens = 0
        texts = speaker([prompt.text for prompt in debates.prompts()])  # type: ignore[operator]
        return [right(q, text) for q, text in zip(questions, texts, strict=True)], counted.tokens

    return method


def router(game: GameConfig) -> Callable[..., VerifierRouter]:
    """A router that asked both members 100 validation questions."""
    questions = questions_of(game, "validation")[:100]
    debates = debates_of(game, len(questions))
    debates.reset(questions=questions)
    prompts = dict(zip([q.id for q in questions], [p.text for p in debates.prompts()], strict=True))
    return lambda members: VerifierRouter.fitted(
        members, questions, AnswerKey(), prompt_of=lambda question: prompts[question.id]
    )


def methods(questions: Sequence[Question]) -> dict[str, Method]:
    """Return the methods of the levels API and logits, on task shopping."""
    team = make_team(TeamConfig(model=("tiny",), tuning="none"), num_agents=2, num_turns=1, seed=0)
    names = tuple(team.policy(agent, 0) for agent in (0, 1))
    game = GameConfig(num_agents=1, num_turns=1)
    found: dict[str, Method] = {
        f"alone: member {place}": by_engine(team, game, written_by(name))
        for place, name in enumerate(names)
    }
    found["API: router by the key on validation questions"] = calls(team, game, router(game))
    found["API: cascade, 3 answers of member 0, then member 1"] = calls(team, game, Cascade)
    found["logits: product of experts"] = by_engine(team, game, ProductOfExperts(names))

    def collaborating(questions: Sequence[Question], seed: int) -> tuple[list[float], int]:
        counted = Counted(team)
        engine = replace(collab(questions, counted), policies=names)  # type: ignore[type-var]
        scores, tokens = by_engine(team, game, engine)(questions, seed)
        return scores, tokens + counted.tokens

    found["logits: Collab, rollouts scored by the key (an oracle)"] = collaborating
    return found


def merged(folder: Path, seed: int, steps: int) -> dict[str, Method]:
    """Train two adapters apart on task coins; return each alone, and their merges."""
    config = TrainConfig()
    config = replace(
        config,
        name="apart",
        seed=seed,
        steps=steps,
        game=replace(config.game, task="coins", num_agents=2, num_turns=1),
        team=replace(config.team, model=("tiny-sharing",), tuning="lora"),
        eval=replace(config.eval, questions=2, questions_before=2),
    )
    experiment.run(config, folder / "run", Console(quiet=True))
    saved = latest(folder / "run" / "checkpoints")
    assert saved is not None
    adapters = [saved / "policies" / name for name in BOTH]
    parts = {"alone: adapter 0": adapters[0], "alone: adapter 1": adapters[1]}
    parts["weights: uniform merge"] = merge(adapters, folder / "uniform")
    parts["weights: task arithmetic, 1"] = merge(adapters, folder / "sum", how="task_arithmetic")
    game = replace(config.game, num_agents=1)
    return {
        name: by_engine(
            make_team(
                replace(config.team, start_from=(str(path),)), num_agents=1, num_turns=1, seed=0
            ),
            game,
            complete,
        )
        for name, path in parts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=100, help="test questions of each task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20, help="of each adapter's training")
    parser.add_argument("--json", type=Path, help="where figures are written, too")
    args = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = {}
    for seed in args.seeds:
        shopping = questions_of(GameConfig(), "test")[: args.questions]
        found = {name: (m, shopping) for name, m in methods(shopping).items()}
        with tempfile.TemporaryDirectory() as place:
            coins = questions_of(GameConfig(task="coins"), "test")[: args.questions]
            for name, method in merged(Path(place), seed, args.steps).items():
                found[f"coins, {name}"] = method, coins
            for name, (method, questions) in found.items():
                scores, tokens = method(questions, seed)
                row = figures.setdefault(name, {"scores": [], "tokens": []})
                row["scores"] += scores
                row["tokens"].append(tokens / len(questions))
                print(f"seed {seed}  {fmean(scores):.3f}  {row['tokens'][-1]:7.1f}  {name}")
    print("\n| method | right | tokens per question |\n|---|---|---|")
    for name, row in figures.items():
        share = share_of(row["scores"])
        print(
            f"| {name} | {share.mean:.3f} [{share.low:.2f}-{share.high:.2f}] "
            f"| {fmean(row['tokens']):.1f} |"
        )
    keep(figures, args.json)


if __name__ == "__main__":
    main()
