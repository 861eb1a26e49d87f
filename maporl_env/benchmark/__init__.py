"""The environment benchmark: a fixed, versioned suite of debates that anyone's agents can play.

    report = score(function_agents("mine", lambda prompts: [...]))
    print(table_row(report))

    python -m maporl_env.benchmark --agents majority --out majority.json

`suite` says what is played, `players` who can play, `scoring` plays and measures, `results` is the
JSON, `tables` the Markdown. docs/how-to/benchmark.md has the rules for
comparing and reference results.
"""

from maporl_env.benchmark.players import Players, function_agents, named_agents, scripted_agents
from maporl_env.benchmark.results import CaseResult, Report, paired_difference, read_report
from maporl_env.benchmark.scoring import score, score_case
from maporl_env.benchmark.suite import CASES, VERSION, Case, choose_cases, listing
from maporl_env.benchmark.tables import (
    CASE_HEADER,
    case_rows,
    case_table,
    difference_table,
    markdown_tables,
    table_header,
    table_row,
    write_tables,
)

__all__ = [
    "CASES",
    "CASE_HEADER",
    "VERSION",
    "Case",
    "CaseResult",
    "Players",
    "Report",
    "case_rows",
    "case_table",
    "choose_cases",
    "difference_table",
    "function_agents",
    "listing",
    "markdown_tables",
    "named_agents",
    "paired_difference",
    "read_report",
    "score",
    "score_case",
    "scripted_agents",
    "table_header",
    "table_row",
    "write_tables",
]
