"""Our side of a comparison: settings of a run whose prompts and messages have exact lengths."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from compared.material import prompts, reward_of
from compared.worker import Worker

from maporl_agents.algorithms import scheme_for
from maporl_agents.config import (
    GameConfig,
    JointGameConfig,
    MAGRPOConfig,
    MAGRPOSettings,
    PPOConfig,
    RunConfig,
    Sampling,
    TeamConfig,
    TrainConfig,
)
from maporl_agents.measure.step_metrics import Metrics
from maporl_agents.models.malloc_settings import keep_freed_memory
from maporl_agents.training import experiment
from maporl_agents.training.make_game import debates_of, training_questions
from maporl_agents.types import Rollout
from maporl_env.declared import Checked, whole
from maporl_env.types import Question

EMPTY = {
    "instruction": "",
    "opening": "{question}",
    "peers": "",
    "peer": " {text} ",
    "verdict": "",
    "again": "",
    "cue": "",
    "nobody": "",
}
"""A template that adds no word, so that a prompt has as many ids as its question has words."""


def scores(_: Sequence[Question], responses: Sequence[str]) -> list[float]:
    """Return the reward of each response: the verifier of the measured runs."""
    return [reward_of(response) for response in responses]


@dataclass(frozen=True)
class Work(Checked):
    """One training iteration.

    Attributes:
        scheme: "ppo" or "magrpo".
        model: its folder.
        agents: A.
        rows: messages of one turn, of all agents together.
        turns: T.
        prompt: ids of a question.
        tokens: ids of a message.
        epochs: passes of the update.
        minibatches: optimiser steps of a pass.
        tuning: "lora" or "full".
        warm: whether a step of the built-in model comes first, so that what libraries keep for
            themselves counts as loaded.
    """

    scheme: str
    model: str
    agents: Annotated[int, whole(1)] = 1
    rows: Annotated[int, whole(1)] = 24
    turns: Annotated[int, whole(1)] = 1
    prompt: Annotated[int, whole(1)] = 200
    tokens: Annotated[int, whole(1)] = 64
    epochs: Annotated[int, whole(1)] = 2
    minibatches: Annotated[int, whole(1)] = 3
    tuning: str = "lora"
    warm: bool = False


def settings(work: Work, folder: Path) -> RunConfig:
    """Return the settings of a run of this work; its questions and template go to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    joint = work.scheme == "magrpo"
    debates = work.rows // work.agents
    asked = 1 if joint else debates
    updates = min(work.minibatches, debates)
    questions = folder / "questions.jsonl"
    rows = [
        {"id": str(i), "prompt": text, "answer": "1", "kind": "number"}
        for i, text in enumerate(prompts(asked, work.prompt))
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    template = folder / "template.json"
    template.write_text(json.dumps(EMPTY), encoding="utf-8")
    game = {
        "task": str(questions),
        "num_agents": work.agents,
        "num_turns": work.turns,
        "template": str(template),
        "verifier": f"{Path(__file__).resolve()}:scores",
    }
    shared = {
        "steps": 1000,
        "questions_per_step": asked,
        "team": TeamConfig(
            model=(work.model,), tuning=work.tuning, train_turns="all", device="cpu"
        ),
        "sampling": Sampling(max_new_tokens=work.tokens),
    }
    if joint:
        return MAGRPOConfig(
            **shared,
            game=JointGameConfig(**game),
            magrpo=MAGRPOSettings(group_size=debates, learning_rate=1e-5),
        )
    return TrainConfig(
        **shared,
        game=GameConfig(**game),
        ppo=PPOConfig(epochs=work.epochs, minibatches=updates, learning_rate=1e-5),
    )


class Trainer:
    """A team, its game and one step after another.

    Args:
        config: the settings of its run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.team, self.learner = experiment.build(config)
        torch.set_num_threads(1)  # `build` takes all cores
        self.game = debates_of(config.game, config.questions_per_step)
        self.questions = training_questions(config.game)[: config.questions_per_step]
        self.step = scheme_for(config).train_step
        self.done = 0

    def train_step(self) -> tuple[list[Rollout], Metrics]:
        """Take a step with a seed of its own."""
        self.done += 1
        return self.step(self.learner, self.game, self.questions, self.config, seed=self.done)

    def own_bytes(self) -> int:
        """Return the bytes of all trained weights, their gradients and AdamW's two moments."""
        trained = [*self.team.trainable().values(), *self.team.trainable_critics().values()]
        return 4 * sum(p.numel() * p.element_size() for named in trained for p in named.values())


def main() -> None:
    """Train as `maporl train` does, as a worker, with the work named on the command line."""
    given = json.loads(sys.argv[1])
    keep_freed_memory()
    worker = Worker()
    folder = Path(given.pop("folder"))
    work = Work(**given)
    if work.warm:
        Trainer(TrainConfig(questions_per_step=4)).train_step()
    trainer = Trainer(settings(work, folder))
    worker.ready(own_bytes=trainer.own_bytes())
    while True:
        worker.wait()
        rollouts, _ = trainer.train_step()
        check(work, rollouts)


def check(work: Work, rollouts: Sequence[Rollout]) -> None:
    """Raise AssertionError where a step was not the work that was asked for."""
    for rollout in rollouts:
        assert {len(done.ids) for done in rollout.completions} == {work.tokens}
        assert {len(prompt) for prompt in rollout.prompts[: work.agents]} == {work.prompt}


if __name__ == "__main__":
    main()
