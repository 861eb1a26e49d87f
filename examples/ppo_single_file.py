r"""PPO on the debate in one file of plain torch: two agents learn to add, and to check each other.

    python examples/ppo_single_file.py                  # 15 seconds of one core
    python examples/ppo_single_file.py --help

No language model: a small dense network reads the digits of what an agent would read (the
question, in turn 2 also the answers of turn 1) and writes one token, an answer in a box. Both
agents share it. A quarter of the digits that an agent reads of the question are blotted out,
differently for each agent, so that in turn 2 there is something to learn from the other's answer.

The environment is the usual one, B debates in lock step (`BatchedDebate`), with its
influence-aware rewards. Everything else is below, top to bottom: network, play, GAE, update.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maporl_env.batched import BatchedDebate, DebateConfig, Prompt
from maporl_env.types import Question

DIGITS = 5  # questions: a + b with a, b below
ANSWERS = 2 * DIGITS - 1
BLOT, PADDING = 20, 21  # ids besides the numbers 0 ... 19
LENGTH = 4  # ids an agent reads: a, b, then its own and the other's answer


@dataclass(frozen=True)
class Settings:
    """Of the run; each is an option of the command line."""

    seed: int = 0
    steps: int = 100
    """PPO updates."""
    debates: int = 128
    """Debates per update."""
    blots: float = 0.25
    """Share of the question's digits that an agent cannot read."""
    learning_rate: float = 2e-3
    epochs: int = 4
    """Passes over each batch."""
    minibatches: int = 4
    clip_coef: float = 0.2
    entropy_coef: float = 0.01
    critic_coef: float = 0.5
    gamma: float = 0.3
    """Turn discount of the influence-aware reward."""
    max_grad_norm: float = 0.5


@dataclass(frozen=True)
class Batch:
    """Messages, one row each: what was read, what was said, and what it was worth."""

    seen: Tensor  # (N, LENGTH) ids
    said: Tensor  # (N,) the answer
    logprobs: Tensor  # (N,) at sampling
    values: Tensor  # (N,) of the critic at sampling
    rewards: Tensor  # (N,) influence-aware
    turns: Tensor  # (N,)


# -- network ---------------------------------------------------------------------------------


class Network(nn.Module):
    """Two dense layers over what stands where; one head says the answer, one what it is worth."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Embedding(PADDING + 1, 32),
            nn.Flatten(),
            nn.Linear(32 * LENGTH, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.actor = nn.Linear(width, ANSWERS)
        self.critic = nn.Linear(width, 1)
        for parameter in (*self.actor.parameters(), *self.critic.parameters()):
            nn.init.zeros_(parameter)  # at first all answers are as likely, and worth nothing

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Map ids (N, LENGTH) to log-probabilities (N, ANSWERS) and values (N,)."""
        states = self.body(seen)
        return self.actor(states).log_softmax(-1), self.critic(states)[:, 0]


def new_network(seed: int) -> Network:
    """Return a network; layers draw their weights from the global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network()


# -- play ------------------------------------------------------------------------------------


def questions() -> list[Question]:
    """Return every sum of two digits."""
    pairs = [(a, b) for a in range(DIGITS) for b in range(DIGITS)]
    return [Question(f"{a}+{b}", f"What is {a} + {b}?", str(a + b)) for a, b in pairs]


def read(prompt: Prompt, blotted: np.ndarray) -> list[int]:
    """Return the ids of what an agent reads: digits of the question, then answers of turn 1.

    The own answer comes first, whatever the agent index.
    """
    question, *others = [text for role, text in prompt.view if role == "user"]
    own = [text for role, text in prompt.view if role == "own"]
    a, b = map(int, re.search(r"(\d+) \+ (\d+)", question).groups())  # type: ignore[union-attr]
    digits = [BLOT if blot else digit for digit, blot in zip((a, b), blotted, strict=True)]
    boxes = [int(box) for text in own + others for box in re.findall(r"\\boxed\{(\d+)\}", text)]
    ids = [*digits, *boxes][:LENGTH]
    return ids + [PADDING] * (LENGTH - len(ids))


@torch.no_grad()
def play(
    network: Network, debates: BatchedDebate, asked: Sequence[Question], blots: float, seed: int
) -> tuple[Batch, np.ndarray]:
    """Play one debate per question; return its messages and which were right, (B, T, A)."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    debates.reset(asked)
    blotted = rng.random((len(asked), len(debates.agents), 2)) < blots
    parts, places = [], []
    while prompts := debates.prompts():
        seen = torch.tensor([read(p, blotted[p.debate, p.agent_index]) for p in prompts])
        logprobs, values = network(seen)
        said = torch.multinomial(logprobs.exp(), 1, generator=generator)[:, 0]
        parts.append((seen, said, logprobs.gather(1, said[:, None])[:, 0], values))
        places += [(p.debate, p.turn, p.agent_index) for p in prompts]
        debates.step([rf"\boxed{{{answer}}}" for answer in said.tolist()])
    index = tuple(np.array(places).T)
    rewards = torch.tensor(debates.turn_rewards()[index], dtype=torch.float32)
    seen, said, logprobs, values = map(torch.cat, zip(*parts, strict=True))
    batch = Batch(seen, said, logprobs, values, rewards, torch.tensor(index[1]))
    right = [[message.score for message in t.messages] for t in debates.transcripts]
    return batch, np.array(right).reshape(len(asked), debates.num_turns, -1)


# -- learn -----------------------------------------------------------------------------------


def advantages_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return advantages, whitened turn by turn, and what the critic should have said.

    A message is one action, and its influence-aware reward counts what it leads to: GAE over a
    single step, reward minus value.
    """
    advantages = batch.rewards - batch.values
    whitened = torch.empty_like(advantages)
    for turn in batch.turns.unique():
        rows = batch.turns == turn
        part = advantages[rows]
        whitened[rows] = (part - part.mean()) / (part.std() + 1e-8)
    return whitened, batch.rewards


def loss_of(
    network: Network, batch: Batch, rows: Tensor, advantages: Tensor, returns: Tensor, s: Settings
) -> Tensor:
    """Return PPO's loss on some rows: clipped objective, critic, entropy."""
    all_logprobs, values = network(batch.seen[rows])
    logprobs = all_logprobs.gather(1, batch.said[rows, None])[:, 0]
    ratio = (logprobs - batch.logprobs[rows]).exp()
    gain = advantages[rows]
    clipped = ratio.clamp(1 - s.clip_coef, 1 + s.clip_coef)
    policy = -torch.minimum(ratio * gain, clipped * gain).mean()
    entropy = -(all_logprobs.exp() * all_logprobs).sum(-1).mean()
    critic = F.mse_loss(values, returns[rows])
    return policy + s.critic_coef * critic - s.entropy_coef * entropy


def update(
    network: Network, optimizer: torch.optim.Optimizer, batch: Batch, s: Settings, seed: int
) -> None:
    """Improve the network on a batch, in a few passes of minibatches."""
    advantages, returns = advantages_of(batch)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(s.epochs):
        order = torch.randperm(len(batch.said), generator=generator)
        for rows in order.tensor_split(s.minibatches):
            loss = loss_of(network, batch, rows, advantages, returns, s)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), s.max_grad_norm)
            optimizer.step()


def train(s: Settings) -> list[np.ndarray]:
    """Train; return the share of right answers by turn after every step, (T,) each."""
    config = DebateConfig(task=questions(), num_agents=2, num_turns=2, gamma=s.gamma)
    debates = BatchedDebate(config, s.debates)
    network = new_network(s.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=s.learning_rate, eps=1e-5)
    rng, history = np.random.default_rng(s.seed), []
    for step in range(s.steps):
        for group in optimizer.param_groups:  # down to nothing in a straight line
            group["lr"] = s.learning_rate * (1 - step / s.steps)
        asked = [debates.game.questions[i] for i in rng.integers(DIGITS**2, size=s.debates)]
        batch, right = play(network, debates, asked, s.blots, seed=s.seed * 10**6 + step)
        update(network, optimizer, batch, s, seed=s.seed * 10**6 + step)
        history.append(right.mean((0, 2)))
        if step % 10 == 9:
            first, second = np.mean(history[-10:], axis=0)
            print(
                f"step {step + 1:4d}   right in turn 1: {first:.3f}   in turn 2: {second:.3f}",
                flush=True,
            )
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in fields(Settings):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    train(Settings(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
