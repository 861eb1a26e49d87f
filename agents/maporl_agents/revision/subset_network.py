"""Q of ordered subsets of agents as a small network, regressed on the returns of mu's episodes.

ReAd (arXiv 2405.14314, section 4). One network takes the state, the actions of the first i agents,
and which agents these are, for all i from 0 (then it is V) to the number of agents:

    minimise  E [ (Q(s, a_1..a_i) - R)^2 ],   R the discounted return that mu got from s on

Its minimum is the conditional mean of R, which is what `maporl_env.revision.values.SubsetValues`
holds in a table. The paper reads texts with a frozen BERT (768 numbers) before one hidden layer of
256; here any functions to vectors are read, such as those of `maporl_env.revision.features`.

Unlike the table, a network has a value for actions that mu never took: what it says of them is a
guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from maporl_agents.seeding import seed_of
from maporl_env.revision.values import Action, State, Step, SubsetCritic, discounted_returns

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """How states and actions become vectors.

    Attributes:
        agents: how many act in a turn.
        state: function from a state to a vector of `state_size` finite numbers.
        state_size: its length.
        action: function from an action to a vector of `action_size` finite numbers. It is not
            asked about None, an agent that did not act, which is all zeros.
        action_size: its length.
    """

    agents: int
    state: Callable[[State], ArrayLike]
    state_size: int
    action: Callable[[Action], ArrayLike]
    action_size: int

    @property
    def size(self) -> int:
        """Numbers in a row: the state, and of each agent its action and whether it is given."""
        return self.state_size + self.agents * (self.action_size + 1)

    def prefixes(self, state: State, actions: Sequence[Action]) -> Rows:
        """Return one row per number of given actions, (len(actions) + 1, size).

        Raises:
            ValueError: more actions than agents, or vectors of other lengths or with numbers that
                are not finite.
        """
        if len(actions) > self.agents:
            raise ValueError(f"{len(actions)} actions were given for {self.agents} agents")
        rows = np.zeros((len(actions) + 1, self.size), dtype=np.float32)
        rows[:, : self.state_size] = _vector(self.state(state), self.state_size, "state")
        for place, action in enumerate(actions):
            start = self.state_size + place * (self.action_size + 1)
            rows[place + 1 :, start] = 1.0
            if action is not None:
                vector = _vector(self.action(action), self.action_size, "action")
                rows[place + 1 :, start + 1 : start + 1 + self.action_size] = vector
        return rows


def _vector(values: ArrayLike, size: int, what: str) -> Rows:
    found = np.asarray(values, dtype=np.float32)
    if found.shape != (size,) or not np.isfinite(found).all():
        raise ValueError(
            f"the features of a {what} must be {size} finite numbers, not shape {found.shape}"
        )
    return found


class SubsetNetwork(SubsetCritic, nn.Module):
    """Q of ordered subsets, by one hidden layer over features.

    An ordinary module: `state_dict` saves it, `to` moves it.

    Args:
        features: of states and actions.
        hidden: units of the hidden layer. Paper: 256.
        seed: of the first weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Features, *, hidden: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.features = features
        generator = torch.Generator().manual_seed(seed_of(seed, "subset critic"))
        self.net = nn.Sequential(
            _linear(features.size, hidden, generator), nn.ReLU(), _linear(hidden, 1, generator)
        )
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, rows: Tensor) -> Tensor:
        """Return Q of N rows of features, (N,), in the unit of the returns."""
        found: Tensor = self.net(rows)[:, 0] * self.scale + self.mean
        return found

    def q(self, state: State, actions: Sequence[Action] = ()) -> float:
        """Return Q of the first agents' actions, V(s) for none."""
        return self._of_prefixes(state, actions)[-1]

    def _difference(
        self, state: State, actions: Sequence[Action], fewer: Sequence[Action]
    ) -> float:
        values = self._of_prefixes(state, actions)  # one pass for both
        return values[-1] - values[len(fewer)]

    @torch.inference_mode()
    def _of_prefixes(self, state: State, actions: Sequence[Action]) -> list[float]:
        rows = torch.from_numpy(self.features.prefixes(state, actions))
        values: list[float] = self(rows.to(self.mean.device)).tolist()
        return values


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Return a layer with the usual first weights, drawn from a generator of its own."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


@dataclass(frozen=True)
class Regression:
    """How the network is fitted.

    Attributes:
        gamma: discount of a turn, in [0, 1]. The paper's is not published.
        epochs: passes over all rows, at least 1.
        batch_size: rows of a step, at least 1. Paper: 32.
        learning_rate: of Adam at the start; falls to 0 in a straight line. Paper: 1e-3, constant.
        seed: of the order of the rows.

    Raises:
        ValueError: a setting that is none of these.
    """

    gamma: float = 1.0
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")


def fit(
    critic: SubsetNetwork, episodes: Sequence[Sequence[Step]], how: Regression | None = None
) -> list[float]:
    """Regress a critic on episodes; return the mean squared error of each epoch.

    Args:
        critic: trained in place. Returns are standardised inside.
        episodes: played by mu.
        how: see `Regression`.

    Raises:
        ValueError: no turns, gamma outside [0, 1], or rewards or features that cannot be used.
    """
    how = how or Regression()
    inputs, targets = _rows(critic.features, episodes, how.gamma)
    if not len(inputs):
        raise ValueError("a critic needs at least one turn to learn from")
    device = critic.mean.device
    critic.mean.fill_(float(targets.mean()))
    critic.scale.fill_(float(targets.std()) or 1.0)
    rows = torch.from_numpy(inputs).to(device)
    wanted = (torch.from_numpy(targets).to(device) - critic.mean) / critic.scale
    steps = how.epochs * math.ceil(len(rows) / how.batch_size)
    optimiser = torch.optim.Adam(critic.net.parameters(), lr=how.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    generator = torch.Generator().manual_seed(seed_of(how.seed, "subset critic rows"))
    errors = []
    for _ in range(how.epochs):
        total = 0.0
        for some in torch.randperm(len(rows), generator=generator).split(how.batch_size):
            loss = (critic.net(rows[some])[:, 0] - wanted[some]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(some)
        errors.append(total / len(rows) * float(critic.scale) ** 2)
    return errors


def _rows(
    features: Features, episodes: Sequence[Sequence[Step]], gamma: float
) -> tuple[Rows, NDArray[np.float32]]:
    """Return one row per ordered subset of each turn, (N, size), and the returns, (N,)."""
    rows, targets = [], []
    for episode in episodes:
        returns = discounted_returns([step.reward for step in episode], gamma)
        for step, value in zip(episode, returns.tolist(), strict=True):
            rows.append(features.prefixes(step.state, step.actions))
            targets += [value] * (len(step.actions) + 1)
    whole = np.concatenate(rows) if rows else np.zeros((0, features.size), dtype=np.float32)
    return whole, np.asarray(targets, dtype=np.float32)
