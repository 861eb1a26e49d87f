"""CoMLRL's trainer as both comparisons start it: one turn, a model per agent, on the processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comlrl.trainers.reinforce import MAGRPOTrainer
from comlrl.trainers.reinforce.magrpo import MAGRPOConfig


def trainer_of(
    kind: type[MAGRPOTrainer],
    agents: Sequence[object],
    reward: Callable[..., list[float]],
    *,
    config: dict[str, Any],
    **more: Any,
) -> MAGRPOTrainer:
    """Return a trainer of some agents, whose samples are drawn from the whole distribution.

    Args:
        kind: the trainer, or a subclass that watches it.
        agents: a model each.
        reward: of the agents' texts, a list per agent.
        config: more of `MAGRPOConfig`.
        more: the other arguments of the trainer.
    """
    drawn = {"temperature": 1.0, "top_p": 1.0, "top_k": None, "num_turns": 1, "num_train_epochs": 1}
    return kind(
        agents=agents,
        num_agents=len(agents),
        reward_func=reward,
        formatters=[lambda item: item["prompt"]] * len(agents),
        args=MAGRPOConfig(
            num_agents=len(agents), eval_interval=0, agent_devices="cpu", **drawn, **config
        ),
        **more,
    )
