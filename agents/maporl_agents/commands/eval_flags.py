"""The command line of ``maporl eval``: short flags, and all of `maporl train` that act here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maporl_agents.commands.chosen_flags import start_of
from maporl_agents.commands.command_line import FLAT, HELP, parse
from maporl_agents.commands.eval import Eval
from maporl_agents.commands.short_help import help_of_flags

PROGRAM = "maporl eval"
BASIC = (
    *("run", "model", "task", "agents", "turns", "limit", "samples", "best_by", "greedy"),
    *("temperature", "split", "out"),
)
"""Flags that ``maporl eval --help`` shows."""
MORE = (
    "The options that most evaluations need. The flags of maporl train for the game, the team and "
    "sampling act here too, and change what the run has (--game.history, --team.device, "
    f"--sampling.top-p, ...): {PROGRAM} --help-all shows them all."
)
EXAMPLES = """Examples:

  maporl eval --run runs/maporl-shopping           the trained team of a run
  maporl eval --model smollm2-135m --task gsm8k    a model as it is
  maporl eval --run runs/x --samples 8             pass@k and the majority of k, for k up to 8
  maporl eval --run runs/x --samples 8 --best-by learned:FOLDER    and the best of k by a verifier
  maporl eval --run runs/x --out x.json            kept; after a kill the same line goes on
"""
SHORT = {
    "task": "game.task",
    "data": "game.data",
    "model": "team.model",
    "agents": "game.num-agents",
    "turns": "game.num-turns",
    "protocol": "game.protocol",
    "protocol-options": "game.protocol-options",
    "verifier": "game.verifier",
    "verdicts": "game.feedback-verifier",
    "shots": "game.shots",
    "answer-rule": "game.answer-rule",
    "long-questions": "game.long-questions",
    "temperature": "sampling.temperature",
    "max-new-tokens": "sampling.max-new-tokens",
}
"""Short flags, and the flag of `maporl train` that sets the same."""


def eval_command(given: Sequence[str]) -> Eval | None:
    """Return the command that flags ask for; None where its help was, which is printed.

    Raises:
        ValueError: they cannot be read, or name one setting twice.
        FileNotFoundError: --run is no run.
    """
    if not {*HELP}.isdisjoint(given):
        print(help_of_flags(Eval, BASIC, PROGRAM, f"{EXAMPLES}\n{MORE}"))
        return None
    _refuse_twice(given)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run", nargs="?")
    parser.add_argument("--task", "--game.task", dest="task", nargs="?")
    parser.add_argument("--model", "--team.model", dest="model", nargs="*")
    start = parser.parse_known_args(given)[0]
    own = None
    if start.run:
        from maporl_agents.training.saved_run import read_config

        own = read_config(Path(start.run))
    usual = Eval(settings=start_of(own, start.task or "", start.model or Eval.model))
    made: Eval = parse(Eval, given, prog=PROGRAM, default=usual, config=FLAT)
    return made


def _refuse_twice(given: Sequence[str]) -> None:
    """Refuse a short flag beside the flag of `maporl train` that sets the same."""
    named = {word[2:].partition("=")[0].replace("_", "-") for word in given if word[:2] == "--"}
    for short, long in SHORT.items():
        if {short, long} <= named:
            raise ValueError(f"--{short} and --{long} are one setting: leave one of them out")
