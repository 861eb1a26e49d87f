"""A debate that is distilled into one model (FuseLLM): its texts, what it expected, the student.

A debate of two agents is played on training questions, and the last message of agent 0 is kept
where it is right. One model, which reads the question alone, learns from these texts and from the
fused distributions of both agents, who read the debate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from maporl_agents.config import GameConfig, OptimizerConfig, RunConfig, TeamConfig
from maporl_agents.mixtures.fused import Fusion, in_own_tokens, teach
from maporl_agents.models.loading import make_team
from maporl_agents.models.team import Team
from maporl_agents.play.rollout import play
from maporl_agents.seeding import seed_of
from maporl_agents.systems.tasks import BenchTask
from maporl_agents.systems.training import Trained, mean_tokens, team
from maporl_agents.training.make_game import debates_of, questions_of
from maporl_agents.types import Rollout
from maporl_agents.update.batching import Row
from maporl_agents.update.fusion import FusedMessages, fusion_step
from maporl_agents.update.optimiser import PolicyLearner
from maporl_env.types import Question

TEXTS, STEPS, ROWS = 100, 20, 48
"""Questions that are debated for texts; steps of the student; texts of a step."""
MESSAGES = 6
"""Of one debate of the bench."""
SHARE = 0.9
"""Of the texts in the loss, the paper's."""


class Texts(NamedTuple):
    """Debates that a student learns from.

    Attributes:
        questions: that they are about.
        rollouts: the debates.
        tokens: generated to get them, in those that are not kept too.
    """

    questions: list[Question]
    rollouts: list[Rollout]
    tokens: int


def right_debates(config: RunConfig, debaters: Team, seed: int) -> Texts:
    """Return debates of `TEXTS` training questions that agent 0 of two ended with a right answer.

    Args:
        config: of the debate.
        debaters: two agents.
        seed: names the sampling noise.
    """
    questions = questions_of(config.game, "train")[:TEXTS]
    debates = debates_of(config.game, len(questions))
    found = play(debaters, debates, questions, config.sampling, seed=seed_of(seed, "texts"))
    right = [n for n, one in enumerate(found) if one.transcript.messages[-2].score == 1.0]
    tokens = sum(len(written.ids) for one in found for written in one.completions)
    return Texts([questions[n] for n in right], [found[n] for n in right], tokens)


def messages(
    student: Team,
    alone: GameConfig,
    config: RunConfig,
    debaters: Team,
    given: Texts,
    read: Sequence[Rollout] = (),
    fusion: Fusion = "min_ce",
) -> FusedMessages:
    """Return agent 0's last messages with what both agents expect, having read a debate.

    A student with another vocabulary learns the same texts in its own tokens.

    Args:
        student: one agent that answers alone.
        alone: the game that it plays.
        config: of the debate.
        debaters: the debate's agents.
        given: questions and debates, see `right_debates`.
        read: the debates that the agents read in place of these, one each; a control.
        fusion: how the agents' distributions are fused, see `mixtures.fused`.
    """
    questions, rollouts, _ = given
    own = play(student, debates_of(alone, len(questions)), questions, config.sampling, seed=0)
    rows = [
        Row(asked.prompts[0], rollout.completions[-2], asked.policies[0], n, 0, 0, 0.0)
        for n, (asked, rollout) in enumerate(zip(own, rollouts, strict=True))
    ]
    teachers = [
        (
            debaters,
            [
                row._replace(prompt=rollout.prompts[place], policy=rollout.policies[place])
                for row, rollout in zip(rows, read or rollouts, strict=True)
            ],
        )
        for place in (-2, -1)
    ]
    pupil, writer = student.bases[0].chat, debaters.base_of(rollouts[0].policies[-2]).chat
    if pupil.tokenizer.get_vocab() != writer.tokenizer.get_vocab():
        rows = [row._replace(completion=in_own_tokens(row, writer, pupil)) for row in rows]
    return teach(student, rows, teachers, fusion=fusion, per="token", top=10)


def learn(student: Team, learnt: FusedMessages, share: float, seed: int) -> None:
    """Train a student for `STEPS` steps; `share` as in `update.fusion.fusion_step`."""
    learner = PolicyLearner(student, OptimizerConfig(learning_rate=1e-3, warmup_steps=0), STEPS)
    generator = torch.Generator().manual_seed(seed_of(seed, "rows"))
    for _ in range(STEPS):
        rows = torch.randperm(len(learnt.batch.mask), generator=generator)[:ROWS]
        fusion_step(learner, learnt.select(rows), share=share, micro_tokens=20_000)


def distilled_debate(task: BenchTask, tokens: int, seed: int, folder: Path) -> Trained:
    """Return one model that a trained debate taught; the debate's training is counted.

    Args:
        task: that it is trained on.
        tokens: that the debate's training and the texts generate together, about.
        seed: of the run.
        folder: of the debate's run.

    Raises:
        ValueError: the debate ends no question right, so that there is nothing to learn from.
    """
    for_texts = round(TEXTS * MESSAGES * mean_tokens(task))
    debate = team("maporl", task, max(tokens // 2, tokens - for_texts), seed, folder)
    own = TeamConfig(model=task.models, tuning=debate.config.team.tuning)
    student = make_team(own, num_agents=1, num_turns=1, seed=seed)
    given = right_debates(debate.config, debate.team, seed)
    if not given.questions:
        raise ValueError("the debate ended no training question right: nothing can be distilled")
    alone = task.training_game(num_agents=1, num_turns=1)
    learn(student, messages(student, alone, debate.config, debate.team, given), SHARE, seed)
    return Trained(student, debate.config, debate.tokens + given.tokens)
