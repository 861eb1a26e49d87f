"""The command line, ``maporl COMMAND``: the table of commands, which `commands` has one by one.

Mistakes of the user end with one sentence and exit code 2, without a traceback (set MAPORL_DEBUG=1
to see one).
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from maporl_agents import distributed
from maporl_agents.commands.bench import Bench
from maporl_agents.commands.command_line import FLAT, HELP, parse, sentence_of
from maporl_agents.commands.compare import Compare
from maporl_agents.commands.compare_systems import WORD, CompareSystems
from maporl_agents.commands.ending import as_program
from maporl_agents.commands.eval import Eval
from maporl_agents.commands.eval_flags import eval_command
from maporl_agents.commands.export import Export
from maporl_agents.commands.fetch import Fetch
from maporl_agents.commands.import_model import Import
from maporl_agents.commands.launch import launch
from maporl_agents.commands.out_of_memory import out_of_memory
from maporl_agents.commands.plan import Plan
from maporl_agents.commands.play import Play
from maporl_agents.commands.report import Report
from maporl_agents.commands.short_help import basic_help, short_help
from maporl_agents.commands.train import Train, settings_from
from maporl_agents.commands.verifier import Verifier
from maporl_agents.commands.watch import Watch
from maporl_agents.config.typed_text import prepared
from maporl_agents.models.malloc_settings import keep_freed_memory
from maporl_agents.records.settings_diff import SettingsDiffer
from maporl_agents.records.storage import CheckpointError
from maporl_env.sandbox import SandboxUnavailable
from maporl_env.services.http_json import RemoteError

WELCOME = """Language models that learn to collaborate, by multi-agent reinforcement learning.

Start with `maporl train` (two tiny models learn to debate, minutes on a CPU), then look at what
became of them: `maporl play --run runs/maporl-shopping`, `maporl report runs/maporl-shopping`.
Every command explains itself with --help; `maporl --version` says which version this is."""


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Play, tyro.conf.subcommand("play")]
    | Annotated[Watch, tyro.conf.subcommand("watch")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Fetch, tyro.conf.subcommand("fetch")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Verifier, tyro.conf.subcommand("verifier")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, and exit: 0 done, 2 the user's mistake, 130 / 143 interrupted and saved.

    Args:
        argv: the words after ``maporl``; those of this process if left out, which then ends here.
    """
    if argv is None:
        return as_program(lambda: main(sys.argv[1:]))
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # signs that a terminal does not know are no error
        sys.stdout.reconfigure(errors="replace")
    try:
        command = _command(prepared(argv))
        if isinstance(command, Train) and command.processes > 1 and not distributed.launched():
            code = launch(argv, command.processes)
        else:
            code = 0 if command is None else command()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except SettingsDiffer as error:  # its lines are a diff
        _say(str(error))
        code = 2
    except distributed.RankLost as error:
        _say(sentence_of(error))
        code = 1
    except (
        *(ValueError, OSError, ImportError, FloatingPointError),
        *(CheckpointError, SandboxUnavailable, RemoteError),
    ) as error:
        if os.environ.get("MAPORL_DEBUG"):
            raise
        origin = getattr(error, "rank", 0)  # of several processes
        _say(sentence_of(error) + (f" (rank {origin})" if origin else ""))
        code = 2
    except Exception as error:
        if (full := out_of_memory(error)) and not os.environ.get("MAPORL_DEBUG"):
            where = f" (rank {distributed.rank()})" if distributed.launched() else ""
            if not hasattr(error, "rank"):  # it happened in this process, be it not the first
                print(f"maporl: {full}{where}", file=sys.stderr)
            sys.exit(1)
        if (origin := getattr(error, "rank", None)) is None:  # it happened in this process
            raise
        _say(f"{type(error).__name__}: {sentence_of(error)} (rank {origin})")
        code = 1
    sys.exit(code)


def _say(sentence: str) -> None:
    """Print a mistake; of several processes the first prints it."""
    if distributed.is_first():
        print(f"maporl: {sentence}", file=sys.stderr)


def _command(given: Sequence[str]) -> Command | CompareSystems | None:
    """Return the command that is asked for; None where a text was, which is printed."""
    if list(given) == ["--version"]:
        print(f"maporl {importlib.metadata.version('maporl')}")
        return None
    if (text := short_help(given)) is not None:
        print(text)
        return None
    if given[:1] == ["eval"]:
        return eval_command(given[1:])
    if given[:2] == ["compare", WORD]:
        systems: CompareSystems = parse(CompareSystems, given[2:], prog=f"maporl compare {WORD}")
        return systems
    if given[:1] not in (["train"], ["plan"]):
        chosen: Command = parse(Command, given, prog="maporl", description=WELCOME, config=FLAT)
        return chosen
    kind: type[Train] | type[Plan] = Train if given[0] == "train" else Plan
    config, scheme = settings_from(given[1:])
    start = kind(config=config, scheme=scheme)
    program = f"maporl {given[0]}"
    if kind is Train and not {*HELP}.isdisjoint(given):
        print(basic_help(start, config, program))
        return None
    made: Train | Plan = parse(kind, given[1:], prog=program, default=start)
    return made


if __name__ == "__main__":
    main()
