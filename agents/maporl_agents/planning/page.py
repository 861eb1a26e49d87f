"""A plan in words and tables, as ``maporl plan`` prints it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from maporl_agents.config import RunConfig, learning_rate_flags
from maporl_agents.planning.machine import GIB, resident_bytes
from maporl_agents.planning.plan import TIME_FACTOR, USABLE, Plan
from maporl_agents.planning.rehearsal import ERROR, Rehearsal


def show(plan: Plan, config: RunConfig, console: Console) -> None:
    """Print a plan with its assumptions."""
    table = Table("memory", "", title=f"Plan of {config.name}: {', '.join(config.team.model)}")
    for what, size in plan.held.items():
        table.add_row(what, amount(size))
    for what, size in plan.phases.items():
        table.add_row(f"  and while in {what}", f"+ {amount(size)}")
    table.add_row("most at once", amount(plan.peak_bytes), style="bold")
    console.print(table)
    console.print(_verdict(plan, config))
    if plan.note:
        console.print(f"{plan.note}.")
    console.print(
        f"\na step reads {plan.prompt_tokens:,} prompt tokens and writes {plan.new_tokens:,}; "
        f"the longest text has {plan.longest_tokens:,}"
    )
    console.print(
        "\nAssumed: each message is as long as its limit (--message-tokens N plans for "
        "N), attention has a fused kernel. Drivers, libraries and gaps between tensors come on "
        f"top: at most {USABLE:.0%} of the device is planned for."
    )
    if plan.machine.overlaps or not (taken := resident_bytes()):
        return
    console.print(
        f"On this CPU Python and its libraries take about {amount(taken)} more, and a C library "
        "that keeps freed blocks for later, as GNU's does, up to 150 MiB, or three quarters of "
        "what is said above where a step has hundreds of messages; with "
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
        how = f"a step of all {large} questions"
    else:
        sizes = f"{rest[-1]} and {large} questions"
        how = f"steps of {sizes}, and a line through them to {rehearsal.count}"
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
        " This machine is busy. The shortest time is that of a run with all cores to itself; no "
        "longest time can be given, for while other processes work, a step can take several times "
        "as long. Plan again when the machine is idle."
    )


def _verdict(plan: Plan, config: RunConfig) -> str:
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
    if plan.max_rows is None or plan.micro_tokens is None:
        return text + " Nor would one row: take a smaller model, nf4, lora or shorter texts."
    text += f" There is room for about {plan.max_rows} prompts side by side (--sampling.max-rows)"
    if not plan.micro_tokens:
        return text + "."
    flags = [flag.replace("learning-rate", "micro-tokens") for flag in learning_rate_flags(config)]
    return text + (
        f" and {plan.micro_tokens:,} tokens in one pass of the update ({' and '.join(flags)})."
    )


def amount(size: float) -> str:
    """Return bytes in words."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
