"""``maporl plan``: the memory and the time of a run, before it is started."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from maporl_agents.config import RunConfig, TrainConfig, checks
from maporl_agents.terminal import console

if TYPE_CHECKING:
    from maporl_agents.planning.machine import Machine
    from maporl_agents.planning.plan import Plan as Forecast
    from maporl_agents.planning.rehearsal import Rehearsal


@dataclass(frozen=True)
class Plan(checks.Checked):
    """Say what a training run would hold in memory and how long a step would take.

    Reads settings and tokenizers, never weights. Takes the flags of `maporl train`, and short ones.
    Example: maporl plan --recipe phi3-gsm8k --gib 80
    """

    config: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    scheme: str = "maporl"
    """As for `maporl train`."""
    recipe: str = ""
    """As for `maporl train`."""
    model: tuple[str, ...] = ()
    """Short for --team.model."""
    agents: checks.Count = 0
    """Short for --game.num-agents."""
    turns: checks.Count = 0
    """Short for --game.num-turns."""
    message_tokens: checks.Count = 0
    """Tokens of each message; 0 takes the limit, which is the worst case."""
    question_tokens: checks.Count = 0
    """Tokens of each question, instead of reading the task's; 0 reads them."""
    gib: checks.NotNegative = 0.0
    """Memory of another device than this one, in GiB; 0 for that of this one."""
    tflops: checks.NotNegative = 0.0
    """Speed of the device in matrix products in the models' dtype, 10^12 operations a second; 0
    measures this one."""
    gb_per_second: checks.NotNegative = 0.0
    """Memory bandwidth of the device, reads and writes together, in GB/s; 0 measures this one."""
    rehearsal_seconds: checks.NotNegative = 20.0
    """Seconds spent on a rehearsal, which forecasts the time of a step: the run is built with
    random weights and takes steps with growing numbers of debates, every message at its limit. On
    an idle machine this was within 15 percent of measured steps; on a busy one the plan says so,
    and its range is wide. 0 leaves it out; time is then a wide range, as it is for runs that need
    longer and for other devices than this one."""

    gpus: int = 1
    """Number of devices to plan for, one process each (docs/scale.md): memory and time are then
    those of a device with its share of the questions; a simulation says where the time of a step
    goes."""
    servers: int = 0
    """With --gpus: the number of servers that write the messages (--sampling.engine vllm), one
    device each."""
    link_gb_per_second: float = 50.0
    """With --gpus: the bandwidth between two devices, in GB/s."""

    def __call__(self) -> int:
        """Run the command; return the exit code: 1 if the run would not fit.

        Raises:
            ValueError: a setting would do nothing in this run, or the run cannot be planned.
        """
        flags = {"self-play.game": self.config.self_play.game, "game.env": self.config.game.env}
        for flag, game in flags.items():
            if game:
                raise ValueError(
                    f"plans are of debates, and --{flag} {game} is another game: take two of its "
                    "steps instead (maporl train --steps 2), and read its seconds.jsonl"
                )
        from maporl_agents.config.effects import refuse_without_effect
        from maporl_agents.planning.page import show, show_time
        from maporl_agents.planning.plan import plan_of
        from maporl_agents.planning.several import cluster_of, served_by, share_of, show_cluster

        whole, screen = served_by(self._settings(), self.servers), console()
        cluster = cluster_of(
            self.gpus, self.servers, self.link_gb_per_second, tools=bool(whole.game.tools)
        )
        config = share_of(whole, self.gpus)
        refuse_without_effect(config)
        plan = plan_of(
            config,
            self._machine(config),
            message_tokens=self.message_tokens,
            question_tokens=self.question_tokens,
        )
        show(plan, config, screen)
        if self.gpus > 1 or self.servers:
            lengths = {
                "message_tokens": self.message_tokens,
                "question_tokens": self.question_tokens,
            }
            show_cluster(whole, plan, cluster, lengths, screen)
        else:
            show_time(plan, config, self._rehearsed(config, plan), screen)
        return 0 if plan.fits else 1

    def _settings(self) -> RunConfig:
        """Return the settings of the run, with the short flags put in their places."""
        config, team = self.config, self.config.team
        if self.model:
            team = replace(team, model=self.model)
        game = replace(
            config.game,
            num_agents=self.agents or config.game.num_agents,
            num_turns=self.turns or config.game.num_turns,
        )
        return replace(config, team=team, game=game)

    def _rehearsed(self, config: RunConfig, plan: Forecast) -> Rehearsal | str:
        """Return the rehearsal of a run, or the reason why there is none."""
        from maporl_agents.planning.rehearsal import rehearse

        if not self.rehearsal_seconds:
            return "none was asked for"
        if self._is_described:
            return "the device described is not this one"
        try:
            return rehearse(config, plan, self.rehearsal_seconds)
        except ValueError as error:
            return str(error)

    @property
    def _is_described(self) -> bool:
        return bool(self.gib or self.tflops or self.gb_per_second)

    def _machine(self, config: RunConfig) -> Machine:
        """Return this machine, with the figures that flags give of another one."""
        from maporl_agents.models.devices import pick_device
        from maporl_agents.models.mixed_precision import dtype_of
        from maporl_agents.planning.machine import GIB, this_machine

        here = this_machine(
            pick_device(config.team.device),
            dtype_of(config.team.dtype),
            spread=config.team.device_map == "auto",
        )
        return replace(
            here,
            name="the device described" if self._is_described else here.name,
            memory_bytes=self.gib * GIB or here.memory_bytes,
            flops=self.tflops * 1e12 or here.flops,
            bytes_per_second=self.gb_per_second * 1e9 or here.bytes_per_second,
        )
