"""``python -m maporl_env.benchmark``: the benchmark for scripted agents and functions, no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from maporl_env.benchmark.players import SCRIPTED, named_agents
from maporl_env.benchmark.scoring import kept_cases, score, told_of_file
from maporl_env.benchmark.suite import VERSION, Case, choose_cases, listing
from maporl_env.benchmark.tables import case_table, table_header, table_row, tables_of_files

EPILOG = f"""agents:
{chr(10).join(f"  {name:10}{does}" for name, does in SCRIPTED.items())}
  MODULE:FUNCTION  your own: a function that takes the list of what agents read and returns as
            many texts; the module is looked for in this folder, too
  Run folders and language models: `maporl bench env`.

examples:
  python -m maporl_env.benchmark --agents majority --out majority.json
  python -m maporl_env.benchmark --agents my_agents:answer --cases 'coins/*'
  python -m maporl_env.benchmark --table majority.json mine.json
  python -m maporl_env.benchmark --table mine.json --against majority.json
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    made = argparse.ArgumentParser(
        prog="python -m maporl_env.benchmark",
        description=f"Score agents on {VERSION}: prints results case by case and a table row.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--agents", metavar="WHO", help="who plays; see below")
    made.add_argument("--name", default="", help="label of the row; by default WHO")
    made.add_argument(
        "--cases", nargs="+", default=[], metavar="CASE", help="only these; * matches"
    )
    made.add_argument("--out", type=Path, help="JSON of the results, kept after every case: the "
                      "same command goes on where it was cut")  # fmt: skip
    made.add_argument("--overwrite", action="store_true", help="begin --out anew")
    made.add_argument("--list", action="store_true", help="only list the cases")
    made.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="only show the tables "
                      "of these results")  # fmt: skip
    made.add_argument("--docs", type=Path, help="with --table: put them between the markers of "
                      "this page of Markdown")  # fmt: skip
    made.add_argument("--against", type=Path, metavar="FILE", help="with --table: instead, by how "
                      "much each is better than these results, paired by question")  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0 done, 2 the user's mistake, 130 interrupted."""
    options = parser()
    given = options.parse_args(argv)
    try:
        if given.list:
            print(listing())
        elif not given.table and (given.docs or given.against):
            raise ValueError("--docs and --against need the results to show: add --table FILE")
        elif given.table:
            print(tables_of_files(given.table, docs=given.docs, against=given.against))
        elif given.agents:
            _score(given)
        else:
            options.print_help()
    except (ValueError, OSError) as error:
        print(f"maporl bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nstopped; with --out, the same command goes on after the last case", file=sys.stderr
        )
        return 130
    return 0


def _score(given: argparse.Namespace) -> None:
    kept = kept_cases(given.out, given.overwrite)
    report = score(
        named_agents(given.agents, given.name),
        choose_cases(given.cases),
        out=given.out,
        overwrite=given.overwrite,
        watch=_show,
    )
    print(f"\n{case_table(report)}\n\n{table_header()}\n{table_row(report)}")
    if given.out is not None:
        print(f"\n{told_of_file(given.out, kept, report)}")


def _show(case: Case, done: int) -> None:
    """Show progress: a line that is written over in a terminal, else one per case."""
    last = done == case.num_questions
    if sys.stderr.isatty() or last:
        end = "\n" if last else ""
        print(f"\r{case.name:28}{done:5} / {case.num_questions}", end=end, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
