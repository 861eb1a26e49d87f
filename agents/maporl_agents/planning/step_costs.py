"""Bytes and work of the parts of one step: playing, scoring, updating.

Rollouts of stand-in messages become rows, rows become passes, and `sketch` counts each pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from maporl_agents.algorithms import StepWork
from maporl_agents.config import RunConfig
from maporl_agents.models.bases import Base
from maporl_agents.models.parallel_bases import cores
from maporl_agents.models.team import DebateLength
from maporl_agents.planning.ledger import Cost
from maporl_agents.planning.sketch import (
    MessageRow,
    Pass,
    Sketch,
    largest,
    nbytes,
    owned,
    passes_of,
    scoring_cost,
    update_cost,
    verifier_bytes,
)
from maporl_agents.planning.turns import KeptTexts, Turn, token_bytes, turn_cost
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


def _length(rollout: Rollout) -> DebateLength:
    """Return the length of a debate as its messages show it."""
    turns = {message.turn for message in rollout.transcript.messages}
    return DebateLength(len(turns), at_once=len(turns) == len(set(rollout.rounds)))


class Row(NamedTuple):
    """A message of a rollout; it stands for `samples` messages at each of `nodes` nodes."""

    prompt: TokenIds
    ids: TokenIds
    policy: str
    critic: str | None
    agent: int
    turn: int
    trained: bool
    nodes: int
    samples: int


@dataclass
class StepCosts:
    """Bytes and work of one step of a team, part by part.

    Attributes:
        config: settings of the run.
        sketch: the team, without weights.
        work: what the scheme declares of its step; None where it declares nothing.
        device: type of the device that the run is planned for, "cpu" or "cuda".
    """

    config: RunConfig
    sketch: Sketch
    work: StepWork | None
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
        tokens = self.tokens(rollouts)[1]
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

    def tokens(self, rollouts: Sequence[Rollout]) -> tuple[int, int]:
        """Return the tokens of all prompts of a step, and the tokens that it writes."""
        rows = [row for rollout in rollouts for row in self._rows(rollout)]
        return (
            sum(row.nodes * len(row.prompt) for row in rows),
            sum(row.nodes * row.samples * len(row.ids) for row in rows),
        )

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
        found = {
            "sampling": self._playing(len(rollouts), worst, training=True),
            "evaluation": self._playing(questions, worst),
        }
        if self.work is not None:
            found |= self._learning(len(rollouts), worst)
        return found | {"optimiser step": float(gradients + copies)}

    def _learning(self, debates: int, worst: Rollout) -> dict[str, float]:
        """Return the peak bytes of scoring and update."""
        gradients = self.gradient_bytes
        return {
            "scoring": self._height(lambda b: self._scoring(b, debates, worst)),
            "update": self._height(lambda b: self._update(b, debates, worst), self._own_gradients)
            + (gradients - sum(map(self._own_gradients, self.sketch.team.bases))),
        }

    def _own_gradients(self, base: Base) -> int:
        """Return the bytes of the gradients of what is trained on a base."""
        names = (*base.policies, *base.critics)
        return nbytes(p for name in names for p in base.trainable(name).values())

    def _playing(self, debates: int, worst: Rollout, *, training: bool = False) -> float:
        """Return the peak bytes of playing; bases keep their caches while others write."""
        return self._height(
            lambda b: self._largest_turn(b, debates, worst, training=training),
            lambda b: self._most_kept(b, debates, worst, training=training),
        )

    def _height(
        self, cost: Callable[[Base], Cost], stays: Callable[[Base], float] = lambda _: 0.0
    ) -> float:
        """Add up the peaks of the bases that work side by side.

        Args:
            cost: of a base.
            stays: bytes in a base's peak that are there while other bases work, too.
        """
        held = {id(base): stays(base) for base in self.sketch.team.bases}
        peaks = [cost(base).peak_bytes - held[id(base)] for base in self.sketch.team.bases]
        at_once = cores() if self.device == "cpu" else 1
        extra = sum(sorted(peaks, reverse=True)[:at_once])
        return extra + sum(held.values()) + self.sketch.unpacked_bytes

    def _most_kept(self, base: Base, debates: int, worst: Rollout, *, training: bool) -> float:
        """Return the most bytes of caches that a base keeps from one turn to the next."""
        turns, room = self._turns(base, worst, training=training), self._room(base)
        if not (turns and room):
            return 0.0
        tokens = max(turn.kept_after * turn.nodes for turn in turns) * debates
        return min(room, tokens * token_bytes(self.sketch.team, base))

    def _largest_turn(
        self, base: Base, debates: int, worst: Rollout, *, training: bool = False
    ) -> Cost:
        """Return the cost of the turn of which most is in memory at once."""
        turns = self._turns(base, worst, training=training)
        costs = [self._turn_cost(base, turn, debates) for turn in turns]
        return max(costs, key=lambda cost: cost.peak_bytes, default=Cost())

    def _turn_cost(self, base: Base, turn: Turn, debates: int) -> Cost:
        sampling = self.config.sampling
        return turn_cost(
            self.sketch.team,
            base,
            turn,
            debates * turn.nodes,
            rows=sampling.max_rows,
            temperature=sampling.temperature,
            room=self._room(base),
        )

    def _room(self, base: Base) -> float:
        """Return the bytes of caches that a base may keep."""
        room = self.config.sampling.cache_gb * 1e9 / len(self.sketch.team.bases)
        return room if base.packs else 0.0

    def _turns(self, base: Base, rollout: Rollout, *, training: bool = False) -> list[Turn]:
        """Return the turns of one debate in which a base writes, with the caches it keeps.

        In `training` they are those of the scheme's debate or tree; otherwise of a debate.
        """
        every = self._rows(rollout, training=training)
        rows = [row for row in every if row.policy in base.policies]
        kept = KeptTexts()
        length = _length(rollout)
        turns = []
        for number, nodes in sorted({(row.turn, row.nodes) for row in rows}):
            own = [row for row in rows if (row.turn, row.nodes) == (number, nodes)]
            samples = own[0].samples  # at each of the nodes
            distinct = {(base.weights_of(row.policy), row.prompt): row.policy for row in own}
            before = kept.tokens
            read = [kept.take(reader, prompt) for reader, prompt in distinct]
            unread = max(
                len(prompt) - count for (_, prompt), count in zip(distinct, read, strict=True)
            )
            idle = kept.tokens
            if self._room(base):
                for row in own:
                    if self.sketch.team.writes_later(row.agent, row.turn, length):
                        kept.put(base.weights_of(row.policy), (row.prompt + row.ids)[:-1])
            critics: dict[str, int] = {}
            for row in own:
                if training and row.trained and row.critic is not None and not base.critics:
                    critics[row.critic] = critics.get(row.critic, 0) + samples * len(row.ids)
            turns.append(
                Turn(
                    policies=tuple(row.policy for row in own) * samples,
                    distinct=tuple(distinct.values()),
                    width=max(read) + unread,
                    new=max(len(row.ids) for row in own),
                    read=max(read),
                    critics=critics,
                    kept_before=before,
                    idle=idle,
                    kept_after=kept.tokens * samples,
                    nodes=nodes,
                )
            )
        return turns

    def _scoring(self, base: Base, debates: int, rollout: Rollout) -> Cost:
        passes = self._passes(base, rollout, debates)
        if not passes:
            return Cost()
        heat = self.config.sampling.temperature
        return scoring_cost(self.sketch.team, base, largest(passes), heat)

    def _update(self, base: Base, debates: int, worst: Rollout) -> Cost:
        passes = self._passes(base, worst, debates, self._minibatches)
        if not passes:
            return Cost()
        heat, again = self.config.sampling.temperature, len(passes) > 1
        return update_cost(self.sketch.team, base, largest(passes), heat, again=again)

    @property
    def _minibatches(self) -> int:
        return self.work.minibatches if self.work else 1

    def update_tokens(self, debates: int, worst: Rollout) -> int:
        """Return the tokens of the largest pass of the update, padding included."""
        bases, parts = self.sketch.team.bases, self._minibatches
        every = [one for base in bases for one in self._passes(base, worst, debates, parts)]
        return largest(every).padded_tokens if every else 1

    def _passes(self, base: Base, rollout: Rollout, debates: int, parts: int = 1) -> list[Pass]:
        """Return the passes in which a base reads one of `parts` parts of its trained rows."""
        if self.work is None:
            return []
        rows = self._pass_rows(base, rollout, debates, parts)
        return passes_of(base, rows, self.work.micro_tokens)

    def rows_at_once(self, rollout: Rollout) -> int:
        """Return the largest number of prompts that one turn of a debate sends to one base."""
        counts: Counter[tuple[int, int, int]] = Counter()
        for row in self._rows(rollout):
            for i, base in enumerate(self.sketch.team.bases):
                if row.policy in base.policies:
                    counts[row.turn, row.nodes, i] += row.nodes * row.samples
        return max(counts.values())

    def _pass_rows(
        self, base: Base, rollout: Rollout, debates: int, parts: int
    ) -> list[MessageRow]:
        """Return one of `parts` parts of the trained rows of `debates` debates or trees.

        Stand-ins of several agents and debates are equal, sampled messages are not: each
        conversation gets a first token of its own, so that they are not taken for nested ones.
        """
        rows = [row for row in self._rows(rollout) if row.trained and row.policy in base.policies]
        most = max((row.nodes * row.samples for row in rows), default=0)
        return [
            ((-place, *row.prompt[1:], *row.ids), len(row.ids), row.policy, row.critic)
            for number in range(1, -(-debates * most // parts) + 1)
            for row in rows
            if number <= -(-debates * row.nodes * row.samples // parts)
            for place in [number * len(rollout.transcript.agents) + row.agent]
        ]

    def _rows(self, rollout: Rollout, *, training: bool = True) -> list[Row]:
        """Return the messages of a rollout; in training a message may stand for a tree's level."""
        team, tree = self.sketch.team, self.work if training else None
        agents = {name: index for index, name in enumerate(rollout.transcript.agents)}
        rows: list[Row] = []
        for place, (message, prompt, completion, policy) in enumerate(rollout.spoken()):
            agent, turn = agents[message.agent], message.turn
            critic = team.critic(agent, turn) if self.critics else None
            level = place if tree and tree.speak_in_turn else turn
            nodes, samples = (1, 1)
            if tree:
                nodes, samples = tree.copies * tree.branching**level, tree.group_size
            trained = team.trains(agent, turn)
            said = prompt, completion.ids, policy, critic
            rows.append(Row(*said, agent, turn, trained, nodes, samples))
        return rows

    def costs(self, rollouts: Sequence[Rollout]) -> dict[str, Cost]:
        """Return the work of one step, from one typical debate; a mean over a round's steps."""
        middle = sorted(rollouts, key=lambda rollout: len(rollout.prompts[0]))[len(rollouts) // 2]
        play_, score, update = Cost(), Cost(), Cost()
        for base in self.sketch.team.bases:
            play_ = play_.then(self._play(base, middle, len(rollouts)))
            if self.work is None:
                continue
            count, parts = len(rollouts), self.work.minibatches
            scored = self._scoring(base, count, middle)
            score = score.then(scored.times(_share(self._passes(base, middle, count))))
            rows = len(self._pass_rows(base, middle, count, 1))
            one_part = len(self._pass_rows(base, middle, count, parts))
            passes = _share(self._passes(base, middle, count, parts)) * rows / max(one_part, 1)
            updated = self._update(base, count, middle)
            update = update.then(updated.times(self.work.epochs * passes))
        found = {"play": play_}
        if self.work is not None:
            found |= {"score": score, "update": update}
        share = 1 / self.config.steps_per_round
        return {part: cost.times(share) if share < 1 else cost for part, cost in found.items()}

    def _play(self, base: Base, rollout: Rollout, debates: int) -> Cost:
        """Return the cost of all turns of `debates` debates like this one."""
        total = Cost()
        for turn in self._turns(base, rollout, training=True):
            total = total.then(self._turn_cost(base, turn, debates))
        return total
