"""A run of self-play from start to end: train against the pool, measure, show.

config.json, metrics.jsonl, checkpoints/, ...     as of any run
pool/step-000010/                                 a version of the team: see `opponent_pool`
results.json                                      the trained team against the untrained one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from maporl_agents.algorithms import scheme_for
from maporl_agents.bridges.outside_run import games_of_step
from maporl_agents.config import RunConfig, scheme_of
from maporl_agents.config.effects import refuse_without_effect
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.records.run_log import RunLog, read_metrics
from maporl_agents.records.storage import save_json
from maporl_agents.seeding import seed_of
from maporl_agents.self_play.games import SelfPlayGames, game_named, questions_of
from maporl_agents.self_play.opponent_pool import Pool, candidates, drawn
from maporl_agents.self_play.ratings import Ratings, ratings_of
from maporl_agents.training import loop
from maporl_agents.training.loop import interruptible
from maporl_agents.training.progress import progress_bar
from maporl_agents.training.run_kind import RunKind
from maporl_agents.types import Rollout, StopReason
from maporl_agents.update.optimiser import PolicyLearner
from maporl_env.intervals import share_of

PLAYERS = 2
SCHEMES = ("maporl", "grpo")
"""Schemes that learn from single episodes of any game."""
MEASURED_FROM = 1_000_000_000
"""Number of the first game that is measured on: training plays others."""


@dataclass
class SelfPlay:
    """A team that is trained against its pool. Made by `run` and `resume`.

    Attributes:
        config: of the run.
        learner: what the scheme trains.
        games: against the pool.
        pool: of past versions.
        ratings: so far.
        opponent: the version of this step.
    """

    config: RunConfig
    learner: PolicyLearner
    games: SelfPlayGames
    pool: Pool
    ratings: Ratings
    opponent: int = 0

    def begin_step(self, step: int) -> None:
        """Draw the opponent of the step after `step` steps."""
        chosen = self.config.self_play
        versions = candidates(step, chosen.every, chosen.pool)
        self.opponent = drawn(versions, self.ratings, chosen.opponents, self.config.seed, step)
        seed = seed_of(self.config.seed, "self-play", step)
        self.games.begin(self.pool.take(self.opponent), seed)

    def after_step(self, step: int) -> Metrics:
        """Rate the games of a step; return their metrics; let the team join the pool if due.

        Raises:
            ValueError: the rewards of a game do not add up to 0.
        """
        if self.games.unbalanced():
            raise ValueError(
                f"the rewards of a game of {self.config.self_play.game!r} do not add up to 0: "
                "self-play is for zero-sum games"
            )
        score = float(self.games.outcomes().mean())
        self.ratings.played(self.opponent, score)
        if step % self.config.self_play.every == 0:
            self.ratings.joined(step)
            self.pool.add(step, self.learner.team)
        metrics = {
            "self_play/opponent": float(self.opponent),
            "self_play/score": score,
            "self_play/rating": self.ratings.now,
            "self_play/best_rating": self.ratings.best,
        }
        if step < self.config.steps:
            self.begin_step(step)
        return metrics

    def on_checkpoint(self, step: int) -> bool:
        """Remove the versions that no later step plays against."""
        chosen = self.config.self_play
        self.pool.keep_only(candidates(step, chosen.every, chosen.pool))
        return True


def _learner(config: RunConfig, kept: RunConfig | None) -> PolicyLearner:
    """Return a fresh learner of a team of two players."""
    scheme = scheme_of(config)
    if scheme in ("magrpo", "iac", "malt"):
        raise ValueError(
            f"self-play learns by {' or '.join(SCHEMES)}, from single games, and scheme {scheme} "
            "from joint answers or trees: choose another --scheme"
        )
    game_named(config.self_play.game)
    refuse_without_effect(config, kept)
    team = _team(config)
    return scheme_for(config).learner(config, team)


def _team(config: RunConfig) -> Team:
    return make_team(
        config.team,
        num_agents=PLAYERS,
        num_turns=config.self_play.turns,
        seed=seed_of(config.seed, "team"),
        critics=scheme_for(config).critics,
    )


def games_of(config: RunConfig, count: int) -> SelfPlayGames:
    """Return `count` copies of the game of a run."""
    chosen = config.self_play
    return SelfPlayGames(
        game_named(chosen.game), count, chosen.turns, gamma=chosen.gamma, sampling=config.sampling
    )


def _finish(
    config: RunConfig, learner: PolicyLearner, log: RunLog, console: Console, start: int
) -> dict[str, Any]:
    """Train and measure. The part that a fresh and a resumed run share."""
    chosen = config.self_play
    pool = Pool(log.folder, _team(config))
    if not start:
        pool.keep_only([])
        pool.add(0, pool.opponent)  # made like the learner's team, which may be loaded already
    done = read_metrics(log.folder)[:start] if start else []
    ratings = ratings_of(done, gain=chosen.elo_gain, every=chosen.every)
    games = games_of(config, games_of_step(config))
    training = SelfPlay(config, learner, games, pool, ratings)
    console.print(
        f"self-play: {chosen.game}, {games_of_step(config)} games a step, opponents: "
        f"{chosen.opponents} of at most {chosen.pool} versions, one every {chosen.every} steps"
    )
    if start < config.steps:
        training.begin_step(start)
        with progress_bar(config, console, start) as (show_step, _):

            def on_step(step: int, metrics: Metrics) -> None:
                show_step(step, metrics)
                log.transcripts("games", games.whole_transcripts[:2])

            loop.train(
                config,
                learner,
                games,
                questions_of(config.steps * config.questions_per_step),
                log,
                start=start,
                on_step=on_step,
                on_alarm=lambda step, alarm: console.print(f"step {step}, warning: {alarm}"),
                on_checkpoint=training.on_checkpoint,
                more_metrics=training.after_step,
            )
    with interruptible(config.steps):
        results = measured(config, learner.team, pool, training.ratings)
    save_json(log.folder / "results.json", results)
    show(results, console)
    console.print(f"\nrun folder: {log.folder}")
    return results


def measured(config: RunConfig, team: Team, pool: Pool, ratings: Ratings) -> dict[str, Any]:
    """Return the score of a team against the untrained one, and the ratings."""
    count = config.self_play.games_measured
    games = games_of(config, count)
    games.begin(pool.take(0), seed_of(config.eval.seed, "self-play"))
    asked = questions_of(count, first=MEASURED_FROM)
    rollouts = play(team, games, asked, config.sampling, seed=seed_of(config.eval.seed, "evaluate"))
    score = share_of([float(x) for x in games.outcomes()])
    return {
        "against_untrained": {"score": score.to_dict(), "games": count},
        "cut_off": _cut(rollouts),
        "rating": ratings.now,
        "versions": {str(step): rating for step, rating in ratings.versions.items()},
    }


def _cut(rollouts: Sequence[Rollout]) -> float:
    """Return the share of the learner's messages that reached the token limit."""
    ends = [said.stop is StopReason.LENGTH for rollout in rollouts for said in rollout.completions]
    return float(np.mean(ends)) if ends else 0.0


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print the score against the untrained team, and the Elo rating of each version."""
    found = results["against_untrained"]
    score = found["score"]
    console.print(
        f"against the untrained team: {score['mean']:.3f} [{score['low']:.3f}, "
        f"{score['high']:.3f}] of {found['games']} games (a draw counts 1/2; 95 % interval, "
        f"{score['interval']})"
    )
    versions = ", ".join(f"{rating:+.0f} (step {n})" for n, rating in results["versions"].items())
    console.print(f"Elo rating {results['rating']:+.0f}; when they joined the pool: {versions}")


SELF_PLAY = RunKind(settled=lambda config: config, make_learner=_learner, finish=_finish)
run, resume = SELF_PLAY.run, SELF_PLAY.resume
