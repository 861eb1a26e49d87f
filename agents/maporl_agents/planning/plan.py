"""Plans a run: the memory it would hold, and the time of a step, part by part.

No table of models is used. The run's own team is made without weights (`sketch`), its first step is
played with stand-in messages of full length, and the code of sampling and updating is run on the
resulting shapes, while a `Ledger` counts.

Assumptions, all stated where the plan is printed: every message is as long as its limit; attention
is computed by a fused kernel; what the library and the device's driver take for themselves, and the
gaps between tensors, come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from maporl_agents.algorithms import StepWork, scheme_for
from maporl_agents.config import RunConfig, Sampling, scheme_of
from maporl_agents.models.bases import window_of
from maporl_agents.models.devices import pick_device
from maporl_agents.models.team import Team
from maporl_agents.planning.ledger import Cost
from maporl_agents.planning.machine import Machine
from maporl_agents.planning.sketch import (
    sketch_team,
)
from maporl_agents.planning.stand_ins import act, first_questions, with_message_tokens
from maporl_agents.planning.step_costs import StepCosts
from maporl_agents.types import Rollout

USABLE = 0.9
"""Share of a device's memory that a plan may fill: the rest is for drivers, libraries and gaps."""
TIME_FACTOR = 3
"""A step is said to take between the limit of the device and this many times as long."""


@dataclass(frozen=True)
class Plan:
    """The cost of a run. Made by `plan_of`, printed by `show`.

    Attributes:
        held: bytes that stay from step to step, by their purpose.
        phases: peak bytes of each part of a step, on top of `held`.
        prompt_tokens: of all prompts of one step; those of kept caches are not read again.
        new_tokens: written in one step.
        longest_tokens: the longest prompt with its message.
        overflows: model -> the longest text it would have to read, and its window, where that is
            less; such a run would end with an error.
        costs: work of one step: "play" and, if the scheme declares them, "score" and "update".
        machine: the device that the run is planned for.
        max_rows: prompts that would fit side by side, by proportion; None if not even one does.
        micro_tokens: tokens that would fit in one pass of the update, likewise; 0 if the scheme
            does not declare its update.
        minibatches: optimiser steps of one pass over the batch.
        note: what the figures of this scheme assume or leave out; "" for nothing.
        lengths: tokens of each message and of each question, as given to `plan_of`.
    """

    held: dict[str, float]
    phases: dict[str, float]
    prompt_tokens: int
    new_tokens: int
    longest_tokens: int
    overflows: dict[str, tuple[int, int]]
    costs: dict[str, Cost]
    machine: Machine
    max_rows: int | None
    micro_tokens: int | None
    minibatches: int
    note: str
    lengths: tuple[int, int]

    @property
    def peak_bytes(self) -> float:
        """Peak memory of tensors, in bytes."""
        return sum(self.held.values()) + max(self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether texts fit the models' windows, and tensors leave the device room for the rest."""
        return not self.overflows and self.peak_bytes <= USABLE * self.machine.memory_bytes

    @property
    def seconds(self) -> dict[str, float]:
        """The least time each part of a step takes on the device."""
        return {part: self.machine.seconds(cost) for part, cost in self.costs.items()}


def plan_of(
    config: RunConfig,
    machine: Machine,
    *,
    message_tokens: int = 0,
    question_tokens: int = 0,
) -> Plan:
    """Plan a run.

    Args:
        config: settings of the run.
        machine: the device that the run is planned for.
        message_tokens: length of each message; 0 for its limit.
        question_tokens: length of the questions; 0 to read those of the task.

    Raises:
        ValueError: settings, models or questions that cannot be had.
    """
    scheme = scheme_for(config)
    declared = getattr(scheme, "work", None)
    work: StepWork | None = declared(config) if declared else None
    lengths = message_tokens, question_tokens
    limits = config.sampling
    config = with_message_tokens(config, message_tokens)
    game, count = config.training_game()
    critics = getattr(scheme, "critics", False)
    sketch = sketch_team(config.team, config.game, critics=critics)
    step = StepCosts(config, sketch, work, pick_device(config.team.device).type)
    asked, longest = first_questions(config, count, question_tokens, sketch.team.bases[0].chat)
    made_up = question_tokens > 0
    rollouts = act(sketch.team, game, asked, config.sampling, made_up=made_up)
    [worst] = act(sketch.team, game, [longest], config.sampling, made_up=made_up)
    held = step.held(rollouts)
    phases = step.phases(rollouts, worst)
    room = USABLE * machine.memory_bytes - sum(held.values())
    rows = min(config.sampling.max_rows, step.rows_at_once(worst) * len(rollouts))
    tokens = step.update_tokens(len(rollouts), worst)
    prompt_tokens, new_tokens = step.tokens(rollouts)
    return Plan(
        held=held,
        phases=phases,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        longest_tokens=max(
            len(p) + len(c.ids) for p, c in zip(worst.prompts, worst.completions, strict=True)
        ),
        overflows=_overflows(sketch.team, worst, limits),
        costs=step.costs(rollouts),
        machine=machine,
        max_rows=_fitting(room, phases["sampling"], rows),
        micro_tokens=_fitting(room - step.gradient_bytes, phases["update"], tokens) if work else 0,
        minibatches=work.minibatches if work else 1,
        note=work.note if work else _undeclared(config),
        lengths=lengths,
    )


def _undeclared(config: RunConfig) -> str:
    """Return a sentence on the part that a plan leaves out where a scheme declares no work."""
    return (
        f"Not included: what {scheme_of(config)} computes between play and the optimiser step, "
        "because its Scheme declares no `work`; only a rehearsal times it"
    )


def _overflows(team: Team, worst: Rollout, limits: Sampling) -> dict[str, tuple[int, int]]:
    """Return the models that cannot read the longest debate, as the sampler would find."""
    found: dict[str, tuple[int, int]] = {}
    for message, prompt, _, policy in worst.spoken():
        model = team.base_of(policy).model
        window = window_of(model)
        needed = len(prompt) + limits.limit_of(
            worst.transcript.agents.index(message.agent), message.turn
        )
        if window is not None and needed > max(window, found.get(model.name_or_path, (0, 0))[0]):
            found[model.name_or_path] = needed, window
    return found


def _fitting(room: float, taken: float, count: int) -> int | None:
    """Return the number that would fit into `room`, in proportion, if `count` take `taken`."""
    return int(room / taken * count) if room > taken / count else None
