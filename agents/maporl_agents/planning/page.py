"""``maporl plan``: makes the plan of a run and prints it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from rich.console import Console
from rich.table import Table

from maporl_agents.config import RunConfig, TrainConfig
from maporl_agents.config.effects import refuse_without_effect
from maporl_agents.models.loading import pick_device
from maporl_agents.planning.machine import GIB, Machine, resident_bytes, this_machine
from maporl_agents.planning.plan import TIME_FACTOR, USABLE, Plan, plan_of
from maporl_agents.planning.rehearsal import ERROR, Rehearsal, rehearse

if TYPE_CHECKING:
    from maporl_agents import cli


def run_command(args: cli.Plan, console: Console) -> int:
    """Carry out ``maporl plan``; return the exit code.

    Raises:
        ValueError: a setting would do nothing in this run, or the run cannot be planned.
    """
    config = args.config
    if args.model:
        config = replace(config, team=replace(config.team, model=args.model))
    game = config.game
    game = replace(
        game, num_agents=args.agents or game.num_agents, num_turns=args.turns or game.num_turns
    )
    config = replace(config, game=game)
    refuse_without_effect(config)
    lengths = {"message_tokens": args.message_tokens, "question_tokens": args.question_tokens}
    plan = plan_of(config, _machine(args, config), **lengths)
    show(plan, config, console)
    show_time(plan, config, _rehearsed(args, config, plan, lengths), console)
    return 0 if plan.fits else 1


def _rehearsed(
    args: cli.Plan, config: RunConfig, plan: Plan, lengths: dict[str, int]
) -> Rehearsal | str:
    """Return the rehearsal of a run, or why there is none."""
    if not args.rehearsal_seconds:
        return "none was asked for"
    if _is_described(args):
        return "the device described is not here"
    try:
        return rehearse(cast("TrainConfig", config), plan, args.rehearsal_seconds, **lengths)
    except ValueError as error:
        return str(error)


def _is_described(args: cli.Plan) -> bool:
    return bool(args.gib or args.tflops or args.gb_per_second)


def _machine(args: cli.Plan, config: RunConfig) -> Machine:
    """Return this machine, or another one as far as it is described."""
    here = this_machine(
        pick_device(config.team.device),
        getattr(torch, config.team.dtype),
        spread=config.team.device_map == "auto",
    )
    return replace(
        here,
        name="the device described" if _is_described(args) else here.name,
        memory_bytes=args.gib * GIB or here.memory_bytes,
        flops=args.tflops * 1e12 or here.flops,
        bytes_per_second=args.gb_per_second * 1e9 or here.bytes_per_second,
    )


def show(plan: Plan, config: RunConfig, console: Console) -> None:
    """Print a plan with its assumptions."""
    table = Table("memory", "", title=f"Plan of {config.name}: {', '.join(config.team.model)}")
    for what, size in plan.held.items():
        table.add_row(what, amount(size))
    for what, size in plan.phases.items():
        table.add_row(f"  and while in {what}", f"+ {amount(size)}")
    table.add_row("most at once", amount(plan.peak_bytes), style="bold")
    console.print(table)
    console.print(_verdict(plan))
    console.print(
        f"\na step reads {plan.prompt_tokens:,} prompt tokens and writes {plan.new_tokens:,}; "
        f"the longest text has {plan.longest_tokens:,}"
    )
    console.print(
        "\nTaken for granted: each message is as long as its limit (--message-tokens N plans for "
        "N), attention has a fused kernel. Drivers, libraries and gaps between tensors come on "
        f"top: at most {USABLE:.0%} of the device is planned for."
    )
    if plan.machine.overlaps or not (taken := resident_bytes()):
        return
    console.print(
        f"On this CPU Python and its libraries take about {amount(taken)} more, and a C library "
        "that keeps freed blocks for later, as GNU's does, up to half of what is said above; with "
        "MALLOC_MMAP_THRESHOLD_=65536 in the environment it gives them back, which takes time."
    )


def show_time(plan: Plan, config: RunConfig, rehearsal: Rehearsal | str, console: Console) -> None:
    """Print how long a step takes: the forecast of a rehearsal, or a range."""
    seconds = plan.seconds
    least = sum(seconds.values())
    if isinstance(rehearsal, str):
        parts = ", ".join(f"{part} {duration(value)}" for part, value in seconds.items())
        console.print(
            f"\na step takes {duration(least)} to {duration(TIME_FACTOR * least)} ({parts} at "
            f"best); {config.steps} steps {duration(config.steps * least)} to "
            f"{duration(config.steps * TIME_FACTOR * least)}, without evaluation. "
            f"No rehearsal: {rehearsal}."
        )
        return
    wall, processor = rehearsal.forecast
    low, high = rehearsal.bounds
    console.print(
        f"\na step takes about {duration(wall)}, {duration(low)} to {duration(high)} "
        f"({duration(processor)} of processor time); {config.steps} steps "
        f"{duration(config.steps * low)} to {duration(config.steps * high)}, without evaluation"
    )
    console.print(_how(rehearsal))
    console.print(_how_sure(rehearsal))


def _how(rehearsal: Rehearsal) -> str:
    """Return a sentence on the steps that were rehearsed."""
    *rest, large = sorted(rehearsal.timed)
    if large == rehearsal.count:
        how = f"a step of all {large} debates"
    else:
        how = (
            f"steps of {rest[-1]} and {large} debates, and a line through them to {rehearsal.count}"
        )
    return (
        f"Rehearsed: {how}, with random weights of the same shapes, every message at its limit. "
        "Messages that end earlier take less; verifiers are left out."
    )


def _how_sure(rehearsal: Rehearsal) -> str:
    """Return a sentence on the reliability of a forecast."""
    spread = max(
        (most.wall / rehearsal.timed[size].wall for size, most in rehearsal.slowest.items()),
        default=1.0,
    )
    load = "unknown" if rehearsal.load is None else f"{rehearsal.load:.1f}"
    text = (
        f"The range: fastest to slowest of the steps taken (a factor of {spread:.2f}), {ERROR:.0%} "
        f"off on either side. Load before: {load} processes for {rehearsal.cores} cores."
    )
    if not rehearsal.busy:
        return text
    return text + (
        " This machine is busy: its least is for all cores to itself, and there is no most: while "
        "others work, a step can take several times as long. Plan again when it is idle."
    )


def _verdict(plan: Plan) -> str:
    size = amount(plan.machine.memory_bytes)
    for model, (tokens, window) in plan.overflows.items():
        return (
            f"cannot run: a text of {tokens:,} tokens does not fit the window of {window:,} tokens "
            f"of {model!r}. Lower max_new_tokens, take fewer agents or turns, set the debate's "
            "token_budget, or take a model with a longer window."
        )
    if not plan.fits:
        text = f"does not fit {plan.machine.name} ({size})."
    else:
        text = f"fits {plan.machine.name} ({size})."
    if plan.max_rows is None or plan.micro_episodes is None:
        return text + " Nor would one row: take a smaller model, nf4, lora or shorter texts."
    return text + (
        f" There is room for about {plan.max_rows} prompts side by side (--sampling.max-rows) and "
        f"{plan.micro_episodes} debates in one pass of the update (--ppo.micro-episodes)."
    )


def amount(size: float) -> str:
    """Return bytes in words."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
