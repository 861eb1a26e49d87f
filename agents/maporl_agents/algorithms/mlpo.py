"""MLPO: one leader learns to use the answers of its peers, who stay as they are.

"How to train a leader" (arXiv 2507.08960; what is known of it is secondary, see the page of the
scheme). In a step every peer answers each question several times. Questions that the peers mostly
get right are dropped. Then the leader answers each of the others G times, having read its peers'
answers, and learns by GRPO from its own scores: `algorithms.grpo` does all but the play. Without
peers this is GRPO.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from maporl_agents.algorithms import StepWork, grpo
from maporl_agents.algorithms.grpo import GRPOLearner, learn, with_room
from maporl_agents.config import MLPOConfig, MLPOSettings, Sampling
from maporl_agents.measure.debate_stats import right
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import Engine, requests, speak
from maporl_agents.seeding import seed_of
from maporl_agents.trees.backtracking import Case, example_of
from maporl_agents.types import Completion, Request, Rollout
from maporl_agents.update.batching import Row
from maporl_env.batched import BatchedDebate
from maporl_env.credit import RIGHT_SCORE
from maporl_env.types import Question

Pool = Mapping[tuple[int, int], Sequence[Completion]]
"""By (question, peer), as indices: the peer's answers."""


def train_step(
    learner: GRPOLearner,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: MLPOConfig,
    *,
    seed: int,
) -> tuple[list[Rollout], Metrics]:
    """Have the peers answer, drop what they know already, and improve the leader on the rest.

    Arguments as of `algorithms.TrainStep`; where all questions would be dropped, none is.

    Returns:
        The rollouts, those of a question one after the other, and the metrics
        (docs/explanation/schemes/mlpo.md).

    Raises:
        FloatingPointError: as in `grpo.train_step`.
    """
    team, sampling, group = learner.team, config.sampling, config.grpo.group_size

    # The peers' first answers, and the share of them that is right.
    asked, engine, told = with_peers(team, game, questions, config, group, seed=seed)

    # The leader answers G times.
    copies = [question for question in asked for _ in range(group)]
    rollouts = play(team, with_room(game, len(copies)), copies, sampling, seed=seed, engine=engine)
    greedy = grpo.greedy_debates(team, game, asked, sampling, config.grpo.chosen())
    return rollouts, learn(learner, rollouts, greedy, config, seed=seed) | told


def with_peers(
    team: Team,
    game: BatchedDebate,
    questions: Sequence[Question],
    config: MLPOConfig,
    group: int,
    *,
    seed: int,
) -> tuple[list[Question], Engine | None, Metrics]:
    """Have the peers answer; return the questions that are kept, what speaks for peers, metrics.

    The engine answers for the peers in debates of these questions, `group` of each.
    """
    settings = config.mlpo
    if len(game.agents) == 1:
        return list(questions), None, Metrics()
    offline = settings.pool == "offline"
    pool = pool_of(
        *(team, game, questions, config.sampling, settings.pool_size),
        seed=config.seed if offline else seed,
        by_question=offline,
    )
    shares = right_shares(game, questions, pool)
    kept = kept_of(shares, settings)
    told = {
        "pool/right": sum(shares) / len(shares),
        "pool/dropped": 1 - len(kept) / len(questions),
        "pool/tokens": float(sum(len(c.ids) for said in pool.values() for c in said)),
    }
    draws = 1 if settings.contexts == "one" else settings.pool_size
    engine = given_peers(pool, kept, group, draws)
    return [questions[place] for place in kept], engine, told


def pool_of(
    team: Team,
    game: BatchedDebate,
    questions: Sequence[Question],
    sampling: Sampling,
    size: int,
    *,
    seed: int,
    by_question: bool = False,
) -> Pool:
    """Return `size` first answers of every peer to every question, written in one call.

    With `by_question` the noise of a question's answers is named by the question, not by its place
    among the others, so that equal seeds give it the same pool whatever else is asked.
    """
    copies = [question for question in questions for _ in range(size)]
    debates = with_room(game, len(copies))
    debates.reset(questions=copies)
    prompts = debates.prompts()  # of all peers, before anybody has spoken
    asked = requests(team, prompts, [()] * len(prompts))
    if by_question:
        names = [seed_of(seed, "pool", question.id) for question in questions]
        asked = [
            replace(one, debate=names[one.debate // size] + one.debate % size) for one in asked
        ]
    said = speak(team, asked, sampling, seed_of(seed, "pool"))
    pool: dict[tuple[int, int], list[Completion]] = {}
    for prompt, completion in zip(prompts, said, strict=True):
        pool.setdefault((prompt.debate // size, prompt.agent_index), []).append(completion)
    return pool


def right_shares(game: BatchedDebate, questions: Sequence[Question], pool: Pool) -> list[float]:
    """Return the share of each question's pool whose score says that it is right.

    An answer on which the verifier failed is not known to be right.
    """
    told = [(place, one.text) for (place, _), said in pool.items() for one in said]
    scores, _ = game.game.score([questions[place] for place, _ in told], [text for _, text in told])
    right, all_of_them = [0] * len(questions), [0] * len(questions)
    for (place, _), score in zip(told, scores, strict=True):
        right[place] += score is not None and score >= RIGHT_SCORE
        all_of_them[place] += 1
    return [r / n for r, n in zip(right, all_of_them, strict=True)]


def kept_of(shares: Sequence[float], settings: MLPOSettings) -> list[int]:
    """Return the indices of the questions that are kept; all where none would be."""
    limit = math.inf if settings.drop_from is None else settings.drop_from
    kept = [place for place, share in enumerate(shares) if share < limit]
    return kept or list(range(len(shares)))


def given_peers(pool: Pool, kept: Sequence[int], group: int, draws: int) -> Engine:
    """Return an engine that answers for the peers from their pool, and asks the leader.

    Args:
        pool: the peers' answers.
        kept: index of the question of each group of debates.
        group: G, debates of a question.
        draws: debate g of a group is told draw g modulo this of every peer's answers.
    """

    def engine(
        team: Team, asked: Sequence[Request], sampling: Sampling, seed: int
    ) -> list[Completion]:
        places = [(kept[one.debate // group], one.agent) for one in asked]
        open_ones = [one for one, place in zip(asked, places, strict=True) if place not in pool]
        written = iter(speak(team, open_ones, sampling, seed))
        return [
            pool[place][one.debate % group % draws] if place in pool else next(written)
            for one, place in zip(asked, places, strict=True)
        ]

    return engine


def imitated(
    config: MLPOConfig, team: Team, game: BatchedDebate, questions: Sequence[Question], *, seed: int
) -> tuple[list[Row], list[Rollout], str] | None:
    """Return what a warm-up imitates for backtracking: rows, debates and a sentence; None without.

    The leader answers each question that is kept `pool_size` times; see `trees.backtracking`.

    Args:
        config: the settings of the run.
        team: whose leader answers.
        game: the environment, of one turn.
        questions: training questions.
        seed: names the random streams.
    """
    settings, count = config.mlpo, config.mlpo.pool_size
    if not settings.backtracking:
        return None
    one_draw = replace(config, mlpo=replace(settings, contexts="one"))
    asked, engine, _ = with_peers(team, game, questions, one_draw, count, seed=seed)
    copies = [question for question in asked for _ in range(count)]
    debates = with_room(game, len(copies))
    rollouts = play(team, debates, copies, config.sampling, seed=seed, engine=engine)
    rows: list[Row] = []
    cases: Counter[Case] = Counter()
    leader = len(game.agents) - 1
    for place, question in enumerate(asked):
        group = rollouts[place * count : (place + 1) * count]
        policy, prompt = group[0].policies[-1], group[0].prompts[-1]
        example, case = example_of(
            [rollout.completions[-1] for rollout in group],
            [right(rollout.transcript.messages[-1], question) for rollout in group],
            settings.backtracking,
            config.sampling.limit_of(leader),
            team.base_of(policy).chat,
        )
        cases[case] += 1
        if example is not None:
            rows.append(Row(prompt, example, policy, place, 0, leader, 0.0))
    counts = ", ".join(f"{case} {cases[case]:,}" for case in get_args(Case))
    return (
        rows,
        rollouts,
        f"backtracking: {len(rows):,} texts of {len(asked):,} questions: {counts}",
    )


def check(config: MLPOConfig, game: BatchedDebate) -> None:
    """Raise ValueError unless the leader of protocol "leader" is trained, and it alone."""
    leader = config.game.num_agents - 1
    if config.game.protocol != "leader":
        raise ValueError(
            f"mlpo trains the leader of game.protocol='leader', not of {config.game.protocol!r}: "
            "grpo trains the agents of any protocol"
        )
    trained = config.team.train_agents or tuple(range(config.game.num_agents))
    if set(trained) != {leader}:
        raise ValueError(
            f"mlpo trains the leader alone, agent {leader}, and team.train_agents={trained} names "
            f"{'others' if leader in trained else 'another'}: set --team.train-agents {leader}"
        )
    if config.team.shard_base:
        raise ValueError(
            "shard_base has all processes write the same messages at once, and mlpo's peers speak "
            "from a pool: leave it out"
        )
    grpo.check(config, game)


def work(config: MLPOConfig) -> StepWork:
    """Return the work of a step: that of GRPO on the first turn."""
    declared, peers = grpo.work(config), config.game.num_agents - 1
    if not peers:
        return declared
    drawn = f"the {config.mlpo.pool_size} answers of each peer to each question"
    note = f"{declared.note}, and {drawn}" if declared.note else f"It leaves out {drawn}"
    return replace(declared, note=note)


SCHEME = replace(
    grpo.SCHEME,
    settings=MLPOConfig,
    check=check,
    train_step=train_step,
    play=None,  # the peers' answers are drawn by the step
    work=work,
    imitated=imitated,
)
