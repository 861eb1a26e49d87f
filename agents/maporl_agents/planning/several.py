"""A plan for several devices: one device's share of a step, and a simulation of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from maporl_agents.algorithms import scheme_for
from maporl_agents.config import RunConfig
from maporl_agents.planning.page import duration
from maporl_agents.planning.plan import Plan, plan_of
from maporl_agents.planning.scale_model import Cluster, Forecast, Work, forecast


def cluster_of(
    devices: int, servers: int, link_gb_per_second: float, *, tools: bool = False
) -> Cluster:
    """Return the devices of a plan; debates with tools wait for each other on servers, too.

    Raises:
        ValueError: there are none, or a number is negative.
    """
    if devices < 1 or servers < 0 or not link_gb_per_second > 0:
        raise ValueError(
            f"--gpus {devices} --servers {servers} --link-gb-per-second {link_gb_per_second}: plan "
            "for at least one device, no fewer than 0 servers and a link above 0"
        )
    lock_step = tools or not servers
    return Cluster(devices, servers, link_gb_per_second * 1e9, lock_step=lock_step)


def served_by(config: RunConfig, servers: int) -> RunConfig:
    """Return the run with messages from servers, of which a plan needs no addresses.

    Raises:
        ValueError: servers cannot write for such a run, for example with full tuning.
    """
    if not servers or config.sampling.engine == "vllm":
        return config
    named = tuple(f"http://server-{number}" for number in range(1, servers + 1))
    return replace(config, sampling=replace(config.sampling, engine="vllm", url=named))


def share_of(config: RunConfig, devices: int) -> RunConfig:
    """Return the run of one device: its share of the questions of a step.

    Raises:
        ValueError: there are more devices than questions.
    """
    if devices > config.questions_per_step:
        raise ValueError(
            f"--gpus {devices} for {config.questions_per_step} questions in a step: plan for at "
            "most as many devices, or raise --questions-per-step"
        )
    return replace(config, questions_per_step=-(-config.questions_per_step // devices))


def simulated(
    config: RunConfig, plan: Plan, cluster: Cluster, lengths: Mapping[str, int]
) -> Forecast:
    """Return the forecast of a step.

    Args:
        config: of the whole run.
        plan: of one device's share.
        cluster: the devices.
        lengths: of messages and questions, as for `plan_of`.
    """
    played, questions = config.training_game()
    scheme = scheme_for(config)
    declared = scheme.work(config) if scheme.work else None
    copies = 1 if declared is None else declared.copies * declared.group_size
    seconds = plan.seconds
    play = seconds.get("play", 0.0)
    if cluster.servers:
        of_server = share_of(config, min(cluster.servers, questions))
        play = plan_of(of_server, plan.machine, **lengths).seconds.get("play", 0.0)
    shares = questions / share_of(config, cluster.devices).questions_per_step
    work = Work(
        debates=questions * copies,
        turns=played.num_turns,
        agents=played.num_agents,
        tokens=plan.new_tokens * shares,
        updates=1 if declared is None else declared.epochs * declared.minibatches,
        trained_bytes=plan.held["trained policies"] + plan.held["critics"],
        adapter_bytes=plan.held["trained policies"],
        play=play,
        score=seconds.get("score", 0.0),
        update=seconds.get("update", 0.0),
    )
    return forecast(cluster, work)


def show_cluster(
    config: RunConfig, plan: Plan, cluster: Cluster, lengths: Mapping[str, int], console: Console
) -> None:
    """Print a simulated step of a run, and what the simulation takes for granted."""
    found = simulated(config, plan, cluster, lengths)
    where = f"{cluster.devices} devices"
    if cluster.servers:
        where += f" and {cluster.servers} servers"
    table = Table("part of a step", "at best", "share", title=f"Simulated: {where}")
    for part, seconds in found.parts.items():
        table.add_row(part, duration(seconds), f"{seconds / found.seconds:.0%}")
    table.add_row("all", duration(found.seconds), "", style="bold")
    console.print(table)
    console.print(
        f"the training devices compute {found.busy:.0%} of the time; the memory above is that of "
        "one of them"
    )
    console.print("\nA simulation, not a measurement. Assumed:")
    for text in cluster.assumptions():
        console.print(f"- {text}")
