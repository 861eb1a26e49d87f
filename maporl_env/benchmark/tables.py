"""Reports as Markdown: a row for each in the table of all agents, and a table of one's cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maporl_env.benchmark.results import (
    CaseResult,
    Report,
    paired_difference,
    read_report,
    require_comparable,
)
from maporl_env.benchmark.suite import CASES, VERSION
from maporl_env.intervals import Mean

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
NOT_PLAYED = "n/a"
HEADER = ("agents", "mean", *(case.name for case in CASES), "words", "tokens")
CASE_HEADER = (
    *("case", "team, by turn", "team, last turn", "gain", "agents", "score", "reward"),
    *("words", "tokens"),
)


def table_row(report: Report) -> str:
    """Return the row of some agents in the table of all; its header is `table_header()`.

    It holds the team's accuracy in the last turn of every case with its 95 % interval, their mean
    if all cases were played, and the mean length of a message in words and in model tokens.
    """
    require_comparable(report)
    return _line(_row(report))


def table_header() -> str:
    """Return the two lines above the rows."""
    return _lines(HEADER, ())


def _row(report: Report) -> tuple[str, ...]:
    results = [report.cases.get(case.name) for case in CASES]
    played = [result for result in results if result is not None]
    tokens = [result.tokens for result in played if result.tokens is not None]
    return (
        report.name,
        "–" if report.mean is None else _short(report.mean),
        *(
            NOT_PLAYED if result is None else _short_mean(result.turns[-1].team)
            for result in results
        ),
        _average([result.words for result in played]),
        _average(tokens),
    )


def case_rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row per case that was played, under `CASE_HEADER`."""
    return [
        _case_row(case.name, report.cases[case.name]) for case in CASES if case.name in report.cases
    ]


def _case_row(name: str, result: CaseResult) -> tuple[str, ...]:
    last = result.turns[-1]
    return (
        name,
        by_turn(result),
        _short_mean(last.team),
        "–" if len(result.turns) == 1 else _short_mean(result.gain, sign="+"),
        _short_mean(last.accuracy),
        NOT_PLAYED if last.score is None else _short_mean(last.score),
        _short_mean(result.reward),
        f"{result.words:.1f}",
        "–" if result.tokens is None else f"{result.tokens:.1f}",
    )


def by_turn(result: CaseResult) -> str:
    """Return the team's accuracy in every turn, e.g. ".500 .625"."""
    return " ".join(_short(turn.team.mean) for turn in result.turns)


def case_table(report: Report) -> str:
    """Return the results of one report, case by case."""
    return _lines(CASE_HEADER, case_rows(report))


def difference_table(first: Report, second: Report) -> str:
    """Return the difference of two reports in each case that both have played, paired by question.

    Raises:
        ValueError: they are of different versions, or have no case in common.
    """
    shared = [case.name for case in CASES if case.name in first.cases and case.name in second.cases]
    if not shared:
        raise ValueError(f"{first.name!r} and {second.name!r} have no case in common")
    rows = [
        (name, _short_mean(paired_difference(first, second, name), sign="+")) for name in shared
    ]
    return _lines(("case", f"{first.name} minus {second.name}"), rows)


def markdown_tables(reports: Sequence[Report]) -> str:
    """Return the tables of all agents: the last turn, then turn by turn.

    Raises:
        ValueError: no reports, two of one name, or of different versions of the suite.
    """
    require_comparable(*reports)
    names = [report.name for report in reports]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a table needs reports of different names, not {names or 'none'}")
    turns = [
        (r.name, *(by_turn(r.cases[c.name]) if c.name in r.cases else NOT_PLAYED for c in CASES))
        for r in reports
    ]
    return "\n".join(
        [
            f"Team accuracy in the last turn, {VERSION}:",
            "",
            _lines(HEADER, [_row(report) for report in reports]),
            "",
            "Turn by turn:",
            "",
            _lines(("agents", *(case.name for case in CASES)), turns),
            "",
            *(_plain(f"{where}: {who}.") for where, who in _origins(reports).items()),
        ]
    )


def tables_of_files(
    files: Sequence[str | Path],
    *,
    docs: str | Path | None = None,
    against: str | Path | None = None,
) -> str:
    """Return the tables of results that `score` wrote.

    Args:
        files: one row each, in this order.
        docs: a page of Markdown that gets the tables between its markers.
        against: a file of results; then by how much each of `files` is better, case by case.

    Raises:
        ValueError: no such results, `docs` and `against` together, or as `markdown_tables`,
            `write_tables` and `difference_table` have it.
    """
    if docs is not None and against is not None:
        raise ValueError("--docs takes the tables of results, not differences: leave one out")
    reports = [read_report(path) for path in files]
    if against is not None:
        other = read_report(against)
        return "\n\n".join(difference_table(one, other) for one in reports)
    if docs is not None:
        write_tables(docs, reports)
    return markdown_tables(reports)


def write_tables(page: str | Path, reports: Sequence[Report]) -> None:
    """Put the tables between the markers of a page of Markdown.

    Raises:
        ValueError: the page does not have each marker once, in order; it is then unchanged.
    """
    page = Path(page)
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{page} must hold a line {BEGIN} and, below it, a line {END}, once each")
    fresh = f"{before}{BEGIN}\n{markdown_tables(reports)}\n{END}{after}"
    page.write_text(fresh, encoding="utf-8")


def _origins(reports: Sequence[Report]) -> dict[str, str]:
    """Return the players of a report, its date and its machine."""
    found: dict[str, list[str]] = {}
    for report in reports:
        found.setdefault(f"Scored {report.date} on {_where(report)}", []).append(report.name)
    return {where: "; ".join(names) for where, names in found.items()}


def _where(report: Report) -> str:
    """Return e.g. "Linux x86_64, Some Processor, 2 cores, python 3.11.7"."""
    known = {name: value for name, value in report.machine.items() if value}
    bare = [str(known.pop(name)) for name in ("platform", "processor") if name in known]
    cores = [f"{known.pop('cores')} cores"] if "cores" in known else []
    return ", ".join([*bare, *cores, *(f"{name} {value}" for name, value in known.items())])


def _short(value: float) -> str:
    """Return e.g. ".912", "1.000" or "-.031"."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def _short_mean(mean: Mean, sign: str = "") -> str:
    value = _short(mean.mean)
    if sign and mean.mean > 0:
        value = sign + value
    return value if mean.half_width is None else f"{value} ±{_short(mean.half_width)}"


def _average(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f}" if values else "–"


def _plain(text: str) -> str:
    """Return a text on one line that opens no tag or comment."""
    return " ".join(text.split()).replace("<", "&lt;")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(map(_line, [header, ["---"] * len(header), *rows]))
