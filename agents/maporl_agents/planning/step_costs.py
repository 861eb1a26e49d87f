"""Bytes and work of the parts of one step: playing, scoring, updating.

Rollouts of stand-in messages become rows, rows become passes, and `sketch` counts each pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from maporl_agents.config import TrainConfig
from maporl_agents.models.bases import Base
from maporl_agents.models.parallel_bases import cores
from maporl_agents.planning.ledger import Cost
from maporl_agents.planning.sketch import (
    Pass,
    Sketch,
    generation_cost,
    largest,
    nbytes,
    owned,
    passes_of,
    scoring_cost,
    token_bytes,
    update_cost,
    verifier_bytes,
)
from maporl_agents.training.experiment import EVAL_BATCH
from maporl_agents.types import Rollout, TokenIds

LEARNED = "learned:"
"""Begins the name of a learned verifier; its folder follows."""
EXPERIENCE_BYTES = 48
"""Numbers that are kept of each sampled token from play to update: ids, log-probabilities, values,
advantages, and the tables they are computed in."""


def _share(passes: Sequence[Pass]) -> float:
    """Return the padded tokens of all passes over those of the largest pass."""
    tokens = [one.padded_tokens for one in passes]
    return sum(tokens) / max(tokens) if tokens else 0.0


class Row(NamedTuple):
    """A message of a rollout."""

    prompt: TokenIds
    ids: TokenIds
    policy: str
    critic: str
    agent: int
    turn: int
    trained: bool


@dataclass
class StepCosts:
    """Bytes and work of one step of a team, part by part.

    Attributes:
        config: settings of the run.
        sketch: the team, without weights.
        device: type of the device that the run is planned for, "cpu" or "cuda".
    """

    config: TrainConfig
    sketch: Sketch
    device: str

    def __post_init__(self) -> None:
        team = self.sketch.team
        self.policies = [p for named in team.trainable().values() for p in named.values()]
        self.critics = [p for named in team.trainable_critics().values() for p in named.values()]

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients of all trained policies and critics."""
        return nbytes([*self.policies, *self.critics])

    def held(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Return the bytes that stay in memory from step to step, by their purpose."""
        policies, critics = nbytes(self.policies), nbytes(self.critics)
        tokens = sum(len(c.ids) for rollout in rollouts for c in rollout.completions)
        tensors = owned(self.sketch.team)
        trained = nbytes(one for one in tensors if one.requires_grad)
        held = {
            "base models, frozen": nbytes(tensors) - trained - self.sketch.packed_bytes,
            "trained policies": policies,
            "critics": critics,
            "AdamW's two moments": 2.0 * (policies + critics),
            "experience": float(EXPERIENCE_BYTES * tokens),
        }
        if rounded := trained - policies - critics:
            held["trained policies, rounded"] = float(rounded)
        if verifiers := self._verifier_bytes():
            held["learned verifiers"] = verifiers
        return held

    def _verifier_bytes(self) -> float:
        """Return the bytes of the learned verifiers of the game; each that is named is loaded."""
        named = (self.config.game.verifier, self.config.game.feedback_verifier)
        folders = [Path(name[len(LEARNED) :]) for name in named if name.startswith(LEARNED)]
        return float(sum(map(verifier_bytes, folders)))

    def phases(self, rollouts: Sequence[Rollout], worst: Rollout) -> dict[str, float]:
        """Return the peak bytes of each part of a step, on top of `held`."""
        questions = min(EVAL_BATCH, self.config.eval.questions)
        gradients = self.gradient_bytes
        # On a GPU all parameters are stepped together, through temporary copies.
        copies = gradients if self.device == "cuda" else 0
        return {
            "sampling": self._height(lambda b: self._longest_turn(b, len(rollouts), worst)),
            "evaluation": self._height(lambda b: self._longest_turn(b, questions, worst)),
            "scoring": self._height(lambda b: self._scoring(b, len(rollouts), worst)),
            "update": self._height(lambda b: self._update(b, len(rollouts), worst), gradients),
            "optimiser step": float(gradients + copies),
        }

    def _height(self, cost: Callable[[Base], Cost], gradients: int = 0) -> float:
        """Add up the peaks of the bases that work side by side; `gradients` are those of all."""
        team = self.sketch.team
        own = {id(base): 0 for base in team.bases}
        if gradients:
            for base in team.bases:
                names = (*base.policies, *base.critics)
                own[id(base)] = nbytes(p for name in names for p in base.trainable(name).values())
        extra = sorted((cost(base).peak_bytes - own[id(base)] for base in team.bases), reverse=True)
        at_once = cores() if self.device == "cpu" else 1
        return sum(extra[:at_once]) + gradients + self.sketch.unpacked_bytes

    def _longest_turn(self, base: Base, debates: int, worst: Rollout) -> Cost:
        """Return the cost of the turn with the longest texts, in one batch of the sampler."""
        rows = [row for row in self._rows(worst) if row.policy in base.policies]
        if not rows:
            return Cost()
        longest = max(rows, key=lambda row: len(row.prompt) + len(row.ids))
        speakers = [row.policy for row in rows if row.turn == longest.turn] * debates
        kept = self._kept_bytes(base, len(speakers) * (len(longest.prompt) + len(longest.ids) - 1))
        speakers = speakers[: self.config.sampling.max_rows]
        read = self._read_before(base, rows, longest)
        cost = self._generate(base, speakers, len(longest.prompt), len(longest.ids), read)
        return replace(cost, peak_bytes=cost.peak_bytes + kept)

    def _generate(
        self, base: Base, speakers: Sequence[str], width: int, new: int, read: int
    ) -> Cost:
        heat = self.config.sampling.temperature
        return generation_cost(self.sketch.team, base, speakers, width, new, heat, read=read)

    def _kept_bytes(self, base: Base, tokens: int) -> int:
        """Return the bytes of the caches that are kept of `tokens` tokens."""
        room = self.config.sampling.cache_gb * 1e9 / len(self.sketch.team.bases)
        if not (base.packs and room):
            return 0
        return int(min(room, tokens * token_bytes(self.sketch.team, base)))

    def _read_before(self, base: Base, rows: Sequence[Row], row: Row) -> int:
        """Return the number of tokens of a prompt that are cached from earlier turns."""
        if not (base.packs and self.config.sampling.cache_gb):
            return 0
        known = ((other.prompt + other.ids)[:-1] for other in rows if other.turn < row.turn)
        return max((len(ids) for ids in known if row.prompt[: len(ids)] == ids), default=0)

    def _scoring(self, base: Base, debates: int, rollout: Rollout) -> Cost:
        passes = self._passes(base, rollout, debates)
        if not passes:
            return Cost()
        heat = self.config.sampling.temperature
        return scoring_cost(self.sketch.team, base, largest(passes), heat)

    def _update(self, base: Base, debates: int, worst: Rollout) -> Cost:
        passes = self._passes(base, worst, self._of_minibatch(debates))
        if not passes:
            return Cost()
        heat, again = self.config.sampling.temperature, len(passes) > 1
        return update_cost(self.sketch.team, base, largest(passes), heat, again=again)

    def _of_minibatch(self, debates: int) -> int:
        return -(-debates // self.config.ppo.minibatches)

    def update_tokens(self, debates: int, worst: Rollout) -> int:
        """Return the tokens of the largest pass of the update, padding included."""
        count = self._of_minibatch(debates)
        every = [one for base in self.sketch.team.bases for one in self._passes(base, worst, count)]
        return largest(every).padded_tokens if every else 1

    def _passes(self, base: Base, rollout: Rollout, debates: int) -> list[Pass]:
        """Return the passes in which a base reads its trained rows of `debates` debates."""
        rows = self._pass_rows(base, rollout, debates)
        return passes_of(base, rows, self.config.ppo.micro_tokens)

    def rows_at_once(self, rollout: Rollout) -> int:
        """Return the largest number of prompts that one turn of a debate sends to one base."""
        counts = Counter(
            (row.turn, i)
            for row in self._rows(rollout)
            for i, base in enumerate(self.sketch.team.bases)
            if row.policy in base.policies
        )
        return max(counts.values())

    def _pass_rows(
        self, base: Base, rollout: Rollout, debates: int
    ) -> list[tuple[TokenIds, int, str, str]]:
        """Return the trained rows of `debates` debates.

        Stand-ins of several agents and debates are equal, sampled messages are not: each
        conversation gets a first token of its own, so that they are not taken for nested ones.
        """
        rows = [row for row in self._rows(rollout) if row.trained and row.policy in base.policies]
        return [
            ((-place, *row.prompt[1:], *row.ids), len(row.ids), row.policy, row.critic)
            for debate in range(1, debates + 1)
            for row in rows
            for place in [debate * len(rollout.transcript.agents) + row.agent]
        ]

    def _rows(self, rollout: Rollout) -> list[Row]:
        team = self.sketch.team
        indices = {agent: index for index, agent in enumerate(rollout.transcript.agents)}
        return [
            Row(
                prompt,
                completion.ids,
                policy,
                team.critic(indices[message.agent], message.turn),
                indices[message.agent],
                message.turn,
                team.trains(indices[message.agent], message.turn),
            )
            for message, prompt, completion, policy in zip(
                rollout.transcript.messages,
                rollout.prompts,
                rollout.completions,
                rollout.policies,
                strict=True,
            )
        ]

    def costs(self, rollouts: Sequence[Rollout]) -> dict[str, Cost]:
        """Return the work of one step, from one typical debate."""
        ppo = self.config.ppo
        middle = sorted(rollouts, key=lambda rollout: len(rollout.prompts[0]))[len(rollouts) // 2]
        play_, score, update = Cost(), Cost(), Cost()
        for base in self.sketch.team.bases:
            play_ = play_.then(self._play(base, middle, len(rollouts)))
            scored = self._scoring(base, len(rollouts), middle)
            score = score.then(scored.times(_share(self._passes(base, middle, len(rollouts)))))
            count = self._of_minibatch(len(rollouts))
            passes = _share(self._passes(base, middle, count)) * len(rollouts) / count
            updated = self._update(base, len(rollouts), middle)
            update = update.then(updated.times(ppo.epochs * passes))
        return {"play": play_, "score": score, "update": update}

    def _play(self, base: Base, rollout: Rollout, debates: int) -> Cost:
        """Return the cost of all turns of `debates` debates like this one."""
        total = Cost()
        rows = [row for row in self._rows(rollout) if row.policy in base.policies]
        for turn in sorted({row.turn for row in rows}):
            turn_rows = [row for row in rows if row.turn == turn]
            speakers = [row.policy for row in turn_rows] * debates
            chunk = speakers[: self.config.sampling.max_rows]
            longest = max(turn_rows, key=lambda row: len(row.prompt))
            new = max(len(row.ids) for row in turn_rows)
            read = self._read_before(base, rows, longest)
            one = self._generate(base, chunk, len(longest.prompt), new, read)
            total = total.then(one.times(len(speakers) / len(chunk)))
        return total
