"""Measures of the engine in one process: each against plain transformers and peft, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compared.games import Trainer, Work, settings
from compared.material import SHAPES, prompts
from compared.plain import Plain
from compared.turns import Measured
from torch.utils._python_dispatch import TorchDispatchMode

from maporl_agents.config import Sampling, TrainConfig
from maporl_agents.play.rollout import play
from maporl_agents.play.speak import Request, speak
from maporl_agents.types import Completion, Rollout, TokenIds

PROMPT, TOKENS = 200, 64


def alternate(
    variants: Mapping[str, Callable[[], object]], repeats: int, warm: int = 1
) -> dict[str, Measured]:
    """Return the processor seconds of each variant, in turns; the first rounds are dropped."""
    found = {name: Measured() for name in variants}
    for repeat in range(repeats + warm):
        for name, work in variants.items():
            begin = time.process_time()
            work()
            if repeat >= warm:
                found[name].seconds.append(time.process_time() - begin)
    return found


def ids_of(trainer: Trainer, count: int, tokens: int) -> list[TokenIds]:
    """Return prompts of an exact length as ids."""
    encode = trainer.team.bases[0].chat.tokenizer
    return [tuple(encode(text)["input_ids"]) for text in prompts(count, tokens)]


@dataclass
class Engine:
    """Where the measures are taken.

    Attributes:
        models: folder with a random model of each shape.
        place: folder for questions.
        repeats: measured rounds of each.
    """

    models: Path
    place: Path
    repeats: int

    def trainer(self, shape: str, **work: Any) -> Trainer:
        """Return our side; `work` are fields of `Work`."""
        folder = self.place / f"game-{len(list(self.place.iterdir()))}"
        return Trainer(settings(Work("ppo", str(self.models / shape), **work), folder))

    def turn(
        self,
        rows: int,
        plain: Sequence[str] = ("set_adapter", "adapter_names"),
        *,
        with_ours: bool = True,
    ) -> dict[str, Measured]:
        """G4: one turn of three agents in one batch; `rows` of each."""
        trainer = self.trainer("small", agents=3, rows=3 * rows)
        other = Plain(str(self.models / "small"), 3)
        ids = ids_of(trainer, 3 * rows, PROMPT)
        own = [ids[agent * rows : (agent + 1) * rows] for agent in range(3)]
        asked = [
            Request(f"agent_{agent}", prompt, agent, debate)
            for agent in range(3)
            for debate, prompt in enumerate(own[agent])
        ]
        sampling = Sampling(max_new_tokens=TOKENS)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda: speak(trainer.team, asked, sampling, 0),
            "set_adapter": lambda: other.turn(own, TOKENS),
            "adapter_names": lambda: other.mixed_turn(own, TOKENS),
        }
        names = [*plain, "ours"] if with_ours else plain
        return alternate({name: ways[name] for name in names}, self.repeats)

    def ragged(self, rows: int = 24, mean: int = TOKENS) -> dict[str, Measured]:
        """G6: messages whose lengths are spread exponentially; a quarter of a padded decode."""
        trainer = self.trainer("small", rows=rows)
        plain = Plain(str(self.models / "small"), 1)
        ids = ids_of(trainer, rows, PROMPT)
        shares = (np.arange(rows) + 0.5) / rows
        lengths = tuple(int(-mean * np.log(1 - share)) + 1 for share in shares)
        sampling = Sampling(agent_max_new_tokens=lengths)
        asked = [Request("agent_0", prompt, row, row) for row, prompt in enumerate(ids)]
        return alternate(
            {
                "ours": lambda: speak(trainer.team, asked, sampling, 0),
                "generate": lambda: plain.write(ids, max(lengths)),
            },
            self.repeats,
        )

    def debate(self, shape: str, prompt: int, tokens: int, turns: int) -> Debate:
        """G5: a debate of three agents on four questions, against reading every prompt anew."""
        trainer = self.trainer(shape, agents=3, rows=12, turns=turns, prompt=prompt, tokens=tokens)
        with counting(trainer) as read:
            rollouts = played(trainer)
        stages = [
            [request for debate, one in enumerate(rollouts) for request in asked(one, turn, debate)]
            for turn in range(turns)
        ]

        def anew() -> None:
            for turn, stage in enumerate(stages):
                speak(trainer.team, stage, trainer.config.sampling, turn)

        measured = alternate({"ours": lambda: played(trainer), "anew": anew}, self.repeats)
        return Debate(measured, read[0] - stepped(rollouts), least(rollouts))

    def update(self, rows: int, epochs: int) -> dict[str, Measured]:
        """Update alone: further passes over the same rows, against plain forward and backward.

        Ours is the difference of steps of 1 + `epochs` passes and of 1, so that what they share,
        play and scoring, cancels.
        """
        trainer = self.trainer("small", rows=rows, minibatches=1)
        plain = Plain(str(self.models / "small"), 1)
        plain.model.set_adapter("agent_0")
        written = plain.write(ids_of(trainer, rows, PROMPT), TOKENS)

        def step(passes: int) -> None:
            trainer.learner.ppo = replace(trainer.learner.ppo, epochs=passes)
            trainer.train_step()

        def forward_and_backward() -> None:
            for _ in range(epochs):
                plain.learn(written, TOKENS, 1)

        found = alternate(
            {
                "long": lambda: step(1 + epochs),
                "short": lambda: step(1),
                "plain": forward_and_backward,
            },
            self.repeats,
        )
        both = zip(found["long"].seconds, found["short"].seconds, strict=True)
        return {"ours": Measured([long - short for long, short in both]), "plain": found["plain"]}

    def whole_step(self, folder: str, rows: int) -> dict[str, Measured]:
        """G11: a step of one agent against generate, forward and backward of the same rows."""
        config = settings(Work("ppo", folder, rows=rows, epochs=1, minibatches=1), self.place / "g")
        trainer = Trainer(config)
        for base in trainer.team.bases:
            base.chat.stop_ids = frozenset()  # a real model would end its messages
        plain = Plain(folder, 1)
        plain.model.set_adapter("agent_0")
        ids = [rollout.prompts[0] for rollout in trainer.train_step()[0]]
        return alternate(
            {
                "ours": trainer.train_step,
                "plain": lambda: plain.learn(plain.write(ids, TOKENS), TOKENS, 1),
            },
            self.repeats,
            warm=0,
        )

    def bookkeeping(self, *, with_step: bool = True) -> dict[str, Measured]:
        """G9: a default step, and its play with an engine that has every message ready."""
        trainer = Trainer(TrainConfig())
        rollouts = played(trainer)
        turns = trainer.config.game.num_turns
        ready = [
            [done for rollout in rollouts for done in written(rollout, turn)]
            for turn in range(turns)
        ]

        def replay() -> None:
            left = iter(ready)
            play(
                trainer.team,
                trainer.game,
                trainer.questions,
                trainer.config.sampling,
                seed=0,
                engine=lambda *_, **__: next(left),
            )

        ways: dict[str, Callable[[], object]] = {"environment": replay}
        if with_step:
            ways["step"] = trainer.train_step
        return alternate(ways, self.repeats)


@dataclass
class Debate:
    """A measured debate.

    Attributes:
        measured: "ours" and "anew".
        read: prompt ids that were read, padding included.
        least: ids that an append-only conversation makes one read.
    """

    measured: dict[str, Measured]
    read: int
    least: int


def played(trainer: Trainer) -> list[Rollout]:
    """Play the trainer's questions once."""
    sampling = trainer.config.sampling
    return play(trainer.team, trainer.game, trainer.questions, sampling, seed=0)


def _of(rollout: Rollout, turn: int) -> slice:
    agents = len(rollout.transcript.agents)
    return slice(turn * agents, (turn + 1) * agents)


def asked(rollout: Rollout, turn: int, debate: int) -> list[Request]:
    """Return the requests of one turn of a debate in which everybody speaks."""
    here = _of(rollout, turn)
    pairs = zip(rollout.policies[here], rollout.prompts[here], strict=True)
    return [Request(policy, prompt, agent, debate) for agent, (policy, prompt) in enumerate(pairs)]


def written(rollout: Rollout, turn: int) -> tuple[Completion, ...]:
    """Return the messages of one turn."""
    return rollout.completions[_of(rollout, turn)]


def stepped(rollouts: Sequence[Rollout]) -> int:
    """Return the ids that decoding reads one at a time: all of a message but its last."""
    return sum(len(done.ids) - 1 for rollout in rollouts for done in rollout.completions)


def least(rollouts: Sequence[Rollout]) -> int:
    """Return the ids of prompts that no earlier turn of the same agent has read."""
    total = 0
    for rollout in rollouts:
        agents = len(rollout.transcript.agents)
        for agent in range(agents):
            kept = 0
            for prompt, done in zip(
                rollout.prompts[agent::agents], rollout.completions[agent::agents], strict=True
            ):
                total += len(prompt) - kept
                kept = len(prompt) + len(done.ids) - 1
    return total


class _Count(TorchDispatchMode):
    """Counts the ids whose embeddings are looked up in tables with a given number of rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.ids = rows, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name in ("aten::embedding", "aten::index.Tensor", "aten::index_select"):
            table = args[0]
            if table.dim() == 2 and len(table) == self.rows and table.is_floating_point():
                where = args[-1] if name != "aten::index.Tensor" else args[1][0]
                self.ids += where.numel() if name != "aten::embedding" else args[1].numel()
        return func(*args, **(kwargs or {}))


@contextmanager
def counting(trainer: Trainer) -> Iterator[list[int]]:
    """Count the ids that models read inside; the number is in the list at the end."""
    table = trainer.team.bases[0].model.get_input_embeddings().weight
    found = [0]
    with _Count(len(table)) as count:
        yield found
    found[0] = count.ids


@dataclass(frozen=True)
class Peak:
    """Speed of one thread here: products of matrices, and a copy larger than the caches."""

    flops: float
    bytes_per_second: float


def peak(repeats: int = 6) -> Peak:
    """Measure the limits, the best of a few, in processor time."""
    a, b = torch.randn(2, 1024, 1024)
    source, target = torch.ones(2, 256 * 2**20, dtype=torch.uint8)
    found = alternate(
        {"product": lambda: torch.mm(a, b), "copy": lambda: target.copy_(source)}, repeats
    )
    return Peak(
        2.0 * 1024**3 / min(found["product"].seconds),
        2.0 * source.numel() / min(found["copy"].seconds),
    )


def shares(engine: Engine, rows: int = 12) -> dict[str, float]:
    """G7: share of the machine's limit that prefill, decode and update reach, on "small".

    R rows, P prompt ids, N new ones, Nb linear weights of the trunk, H of the head, L of one
    adapter, l layers of width h, c numbers of the cache per id. Of the last layer only keys and
    values are needed of every id; e and f are the linear weights of the base and of one adapter
    that are needed of the states read out alone, of which there are 1 a row and S.
    prefill  R (2 (Nb + L) P - 2 (e + f) (P - 1) + 2 (l - 1) h P^2 + 4 h P + 2 H) / F
    decode   max(R (2 (Nb + L + H) + 4 l h context) / F, 4 (Nb + 3 L + H + R c context) / B)
    update   (4 Nb + 6 L) T - (4 e + 6 f) P + 4 H S + 3 (2 l h T^2 - 2 h P^2) per row, over F, for
             T = P + S ids; the base is frozen
    """
    shape = SHAPES["small"]
    h, layers = shape.hidden, shape.layers
    kv = 2 * h * shape.kv_heads // shape.heads
    trunk = layers * (2 * h * h + h * kv + 3 * h * shape.inside)
    head = shape.words * h
    adapter = 8 * layers * (4 * h + h * 2 + kv + 3 * (h + shape.inside))
    last = 2 * h * h + 3 * h * shape.inside  # e
    last_adapter = 8 * (4 * h + 3 * (h + shape.inside))  # f
    trainer = engine.trainer("small", agents=3, rows=rows)
    ids = ids_of(trainer, rows, PROMPT)
    three = [Request(f"agent_{i % 3}", prompt, i % 3, i) for i, prompt in enumerate(ids)]

    def say(tokens: int) -> Callable[[], object]:
        sampling = Sampling(max_new_tokens=tokens)
        return lambda: speak(trainer.team, three, sampling, 0)

    found = alternate({"one": say(1), "many": say(1 + TOKENS)}, engine.repeats)
    one, many = found["one"].middle, found["many"].middle
    update = engine.update(24, 2)["ours"].middle / 2
    limit = peak()
    prefill = rows * (
        2 * (trunk + adapter) * PROMPT
        - 2 * (last + last_adapter) * (PROMPT - 1)
        + 2 * (layers - 1) * h * PROMPT**2
        + 4 * h * PROMPT
        + 2 * head
    )
    context = PROMPT + TOKENS / 2
    step = max(
        rows * (2 * (trunk + adapter + head) + 4 * layers * h * context) / limit.flops,
        4 * (trunk + 3 * adapter + head + rows * layers * kv * context) / limit.bytes_per_second,
    )
    length = PROMPT + TOKENS
    passed = 24 * (
        (4 * trunk + 6 * adapter) * length
        - (4 * last + 6 * last_adapter) * PROMPT
        + 4 * head * TOKENS
        + 3 * (2 * layers * h * length**2 - 2 * h * PROMPT**2)
    )
    return {
        "prefill": prefill / limit.flops / one,
        "decode": step * TOKENS / (many - one),
        "update": passed / limit.flops / update,
    }
