"""BenchMARL: its IPPO and MAPPO on the game as one of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("benchmarl", reason="needs the extra benchmarl")

import torch
from arena import RULES, Ledger, assert_learnt
from benchmarl.algorithms import IppoConfig, MappoConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDict
from torchrl.envs import EnvBase, PettingZooWrapper
from torchrl.envs.utils import ExplorationType, set_exploration_type

GROUP = "agent"  # BenchMARL puts agent_0 and agent_1 into one group of this name
STEPS, ITERATIONS = 500, 10


class CollaborationTask(PettingZooClass):
    """Their PettingZoo task with our game in the place of a game of theirs."""

    def __init__(self) -> None:
        super().__init__("COLLABORATION", {"max_cycles": RULES["num_turns"]})
        self.ledgers: list[Ledger] = []

    def get_env_fun(self, *_: Any, **__: Any) -> Callable[[], EnvBase]:
        def make() -> EnvBase:
            self.ledgers.append(Ledger())
            return PettingZooWrapper(self.ledgers[-1], categorical_actions=True, return_state=True)

        return make

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_state(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False


class Rewards(Callback):
    """Keeps what the agents were paid, (STEPS, 2) per batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def on_batch_collected(self, batch: Any) -> None:
        self.seen.append(batch["next", GROUP, "reward"].reshape(-1, 2).numpy())


@pytest.fixture(autouse=True)
def _generators() -> Iterator[None]:
    """BenchMARL seeds the process-global generators."""
    numpys = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        yield
    np.random.set_state(numpys)  # noqa: NPY002


def make_experiment(algorithm: Any, folder: Path, **parts: Any) -> Experiment:
    config = ExperimentConfig.get_from_yaml()
    config.gamma, config.lr = 1.0, 3e-3
    config.max_n_iters, config.max_n_frames = ITERATIONS, None
    config.on_policy_collected_frames_per_batch = STEPS
    config.on_policy_n_envs_per_worker = 1
    config.on_policy_n_minibatch_iters = 4
    config.on_policy_minibatch_size = 125
    config.evaluation = config.render = config.create_json = False
    config.loggers, config.save_folder = [], str(folder)
    model = MlpConfig(num_cells=[32], layer_class=torch.nn.Linear, activation_class=torch.nn.Tanh)
    return Experiment(
        algorithm_config=algorithm,
        model_config=model,
        critic_model_config=model,
        config=config,
        seed=0,
        **parts,
    )


@pytest.mark.parametrize("algorithm", [IppoConfig, MappoConfig])
def test_it_learns_and_sees_every_reward(algorithm: Any, tmp_path: Path) -> None:
    task, rewards = CollaborationTask(), Rewards()
    settings = algorithm.get_from_yaml()
    settings.entropy_coef = 0.01
    experiment = make_experiment(settings, tmp_path, task=task, callbacks=[rewards])
    experiment.run()
    paid = max((ledger.table() for ledger in task.ledgers if ledger.paid), key=len)
    seen = np.concatenate(rewards.seen)
    assert len(seen) == STEPS * ITERATIONS
    assert seen == pytest.approx(paid[: len(seen)])

    def act(observations: np.ndarray) -> Any:
        data = TensorDict(
            {GROUP: {"observation": torch.from_numpy(observations)}}, [len(observations)]
        )
        return experiment.policy(data)[GROUP, "action"]

    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        assert_learnt(f"BenchMARL {algorithm.__name__.removesuffix('Config').upper()}", act)
