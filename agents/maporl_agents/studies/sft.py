"""Supervised fine-tuning on the best tenth of a team's own debates: a baseline without rewards.

The untrained team debates as many questions as MAPoRL would in training. The best tenth of the
debates, by mean verifier score, is then imitated: every policy on its own messages, given what it
had read. The paper reports that this does not teach to debate (its section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from maporl_agents.config import TrainConfig
from maporl_agents.play.questions import questions_of_step
from maporl_agents.play.rollout import play
from maporl_agents.records import checkpoint_folder
from maporl_agents.records.run_log import RunLog
from maporl_agents.seeding import seed_of
from maporl_agents.training.experiment import (
    asked_before,
    build,
    held_out,
    measure,
    save_checkpoint,
)
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.types import Rollout, TokenBatch
from maporl_agents.update import imitation
from maporl_agents.update.batching import collate
from maporl_agents.update.minibatch_epochs import minibatches
from maporl_agents.update.optimiser import PPOLearner


@dataclass(frozen=True)
class SFTConfig:
    """Settings of the imitation of the best debates."""

    best_share: float = 0.1
    """Share of the debates that is imitated, in (0, 1]. Paper: the best tenth."""
    epochs: int = 3
    """Passes over them, the learning rate falling linearly to 10 %."""

    def __post_init__(self) -> None:
        if not 0 < self.best_share <= 1:
            raise ValueError(f"best_share must lie in (0, 1], not {self.best_share}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")


def run(
    config: TrainConfig, sft: SFTConfig, folder: Path, console: Console, *, overwrite: bool = False
) -> dict[str, Any]:
    """Sample, choose, imitate and measure; leave a run folder as `experiment.run` does.

    Args:
        config: the settings of the training run that this is compared with.
        sft: how much is imitated, how often.
        folder: of the run; its team can be loaded by `experiment.load_team`.
        console: where progress is shown.
        overwrite: replace a run that is there.

    Returns:
        The results, as in ``results.json``.
    """
    held = held_out(config)
    team, _ = build(config)
    learner = PPOLearner(team, replace(config.ppo, warmup_steps=0), sft.epochs)
    with RunLog.create(folder, config, overwrite=overwrite) as log:
        before = measure(config, team, asked_before(config, held))
        best = best_debates(sampled_debates(config, learner, log), sft.best_share, config.seed)
        console.print(f"imitating {len(best)} debates")
        imitate(config, sft, learner, best, log)
        save_checkpoint(folder, config.steps, learner)
        after = measure(config, team, held)
        stages = {
            stage: {decoding: result.to_dict() for decoding, result in results.items()}
            for stage, results in (("before", before), ("after", after))
        }
        for stage, results in (("before", before), ("after", after)):
            log.transcripts(stage, results["sampled"].transcripts, replace=True)
        checkpoint_folder.save_json(folder / "results.json", stages)
    return stages


def sampled_debates(config: TrainConfig, learner: PPOLearner, log: RunLog) -> list[Rollout]:
    """Play all questions of a training run with the team as it is, logging each step's tokens."""
    questions = training_questions(config.game)
    debates = debates_of(config.game, config.questions_per_step)
    rollouts: list[Rollout] = []
    for step in range(config.steps):
        asked = questions_of_step(questions, step, config.questions_per_step, config.seed)
        seed = seed_of(config.seed, "step", step)
        played = play(learner.team, debates, asked, config.sampling, seed=seed)
        completions = [c for rollout in played for c in rollout.completions]
        tokens = sum(len(completion.ids) for completion in completions)
        log.metrics(step + 1, {"answers": float(len(completions)), "tokens": float(tokens)})
        rollouts += played
    return rollouts


def best_debates(rollouts: Sequence[Rollout], share: float, seed: int) -> list[Rollout]:
    """Return the share with the highest mean verifier score, at least one; ties fall by lot.

    A debate without any score is never among the best while others are left.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, "ties"))
    lots = torch.rand(len(rollouts), generator=generator).tolist()
    order = sorted(range(len(rollouts)), key=lambda i: (-mean_score(rollouts[i]), lots[i]))
    return [rollouts[i] for i in order[: max(1, round(share * len(rollouts)))]]


def mean_score(rollout: Rollout) -> float:
    """Return the mean verifier score of a debate's messages, -1 without any."""
    scores = [m.score for m in rollout.transcript.messages if m.score is not None]
    return sum(scores) / len(scores) if scores else -1.0


def imitate(
    config: TrainConfig, sft: SFTConfig, learner: PPOLearner, best: Sequence[Rollout], log: RunLog
) -> None:
    """Raise the likelihood of the chosen debates, every policy on its own messages.

    An optimiser step sees about as many debates as one minibatch of the run it is compared with.
    """
    batch, _ = collate(learner.team, best)
    steps_per_epoch = config.ppo.minibatches * max(1, round(len(best) / config.questions_per_step))
    generator = torch.Generator().manual_seed(seed_of(config.seed, "sft"))
    for epoch in range(sft.epochs):
        losses = [
            imitation_step(learner, batch.select(rows), config)
            for rows in minibatches(batch, steps_per_epoch, generator)
        ]
        learner.schedule.step()
        log.metrics(config.steps, {"sft_epoch": epoch + 1, "nll": sum(losses) / len(losses)})


def imitation_step(learner: PPOLearner, batch: TokenBatch, config: TrainConfig) -> float:
    """Take one optimiser step on a minibatch; return its loss per policy, averaged."""
    return imitation.imitation_step(
        learner,
        batch,
        micro_tokens=config.ppo.micro_tokens,
        temperature=config.sampling.temperature,
    )
