"""The pages of the studies: the summary with its plots, and the tables beside it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from maporl_agents.studies.page import study_page, summary, write_pages, write_printed
from maporl_agents.studies.plots import Point, deciding_difference, last_scores
from maporl_agents.studies.printed import PrintedClaim, printed_results
from maporl_agents.studies.results import Claim, Study
from tests.agents.made_studies import make_study

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "docs" / "explanation" / "results.md"
TABLES = SHIPPED.with_suffix("")


def study() -> Study:
    claims = (
        Claim("The debate improves.", ("debate/training",)),
        Claim("One agent is worse.", ("debate/single",)),
        Claim("Nobody measured this.", ("debate/nothing",)),
    )
    return replace(make_study(), claims=claims)


def test_the_command_writes_summary_tables_and_plots(tmp_path: Path) -> None:
    path = tmp_path / "findings.md"
    write_pages(path, [study(), replace(study(), name="other", claims=())])
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    folder = ("claims.md", "s.md", "s.png", "other.md", "other.png")
    assert written == {"findings.md", *(f"findings/{name}" for name in folder)}
    assert (tmp_path / "findings" / "s.png").read_bytes().startswith(b"\x89PNG")
    for page in tmp_path.rglob("*.md"):
        targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        assert targets
        assert [target for target in targets if not (page.parent / target).is_file()] == []


def test_the_summary_counts_judgements_and_keeps_the_caveats() -> None:
    text = summary(printed_results([study()]), "results")
    assert "**Of 3 claims, judged by sampled messages: 2 hold, 1 are not measured.**" in text
    assert "- **holds** (greedy: not measured): The debate improves." in text
    joined = " ".join(text.split())
    assert "(Holm, 3 claims)" in joined
    assert "chosen on test questions that these tables show" in joined


def test_a_plot_shows_the_printed_figures() -> None:
    [printed] = printed_results([study()]).studies
    debate, _, single = last_scores(printed)
    # three seeds .60 .61 .62: mean .61, half width t(.975, 2) .01 / sqrt 3 = 4.303 * .00577 = .025
    assert debate == ("Trained debate", 0.31, Point(0.61, 0.025))
    assert single == ("one agent", None, Point(0.31, 0.025))
    improves, worse, unmeasured = printed.claims
    assert deciding_difference(improves) == Point(0.3, 0.0)
    assert deciding_difference(worse) == Point(0.3, 0.0)
    assert deciding_difference(unmeasured) is None


@pytest.mark.parametrize(
    ("sentence", "point"),
    [
        ("A = 2, turn 1 to 2: -0.011 ± 0.013 against 0.313 without.", Point(-0.011, 0.013)),
        ("Vanishes (rise +0.5 ± 0.1, lost by shuffling +0.6 ± 0.2, kept -14 %).", Point(0.6, 0.2)),
        ("One seed: +0.250; one seed has no interval.", Point(0.25, 0.0)),
        ("Not all of it was measured.", None),
    ],
)
def test_the_deciding_difference_is_read_from_its_sentence(
    sentence: str, point: Point | None
) -> None:
    claim = PrintedClaim("It is so.", "holds", "holds", sentence, "", "-")
    assert deciding_difference(claim) == point


# --- The pages of this repository ---------------------------------------------------


def test_every_shipped_claim_stands_in_table_summary_and_study() -> None:
    table = (TABLES / "claims.md").read_text(encoding="utf-8").splitlines()
    rows = [
        line[2:].split(" | ") for line in table if re.match(r"\| [a-z]+(-[a-z]+)? \| .*\*\*", line)
    ]
    assert len(rows) == 38
    text = SHIPPED.read_text(encoding="utf-8")
    for name, claim, sampled, greedy, because, _ in rows:
        assert f"- {sampled} (greedy: {greedy}): {claim}\n" in text
        assert because in (TABLES / f"{name}.md").read_text(encoding="utf-8")


NO_STUDIES = ("claims", "gsm8k", "smollm2", "systems", "systems-ten")
"""Pages of results that other commands write."""


def test_the_shipped_summary_is_short_and_shows_every_study() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    pages = sorted(path.stem for path in TABLES.glob("*.md") if path.stem not in NO_STUDIES)
    assert sorted(re.findall(r"\]\(results/([a-z-]+)\.png\)", text)) == pages
    assert len(text.split()) < 1500
    assert all(
        len(path.read_text(encoding="utf-8").splitlines()) < 400 for path in TABLES.glob("*.md")
    )


def test_a_study_page_has_claims_table_and_sentences() -> None:
    [printed] = printed_results([study()]).studies
    text = study_page(printed, "results.md")
    assert "| Trained debate | method |" in text
    assert "- **Not measured**: Nobody measured this. Greedy: **not measured**." in text
    assert all(f"- {sentence}" in text for sentence in printed.sentences)


def test_results_without_studies_have_no_plots(tmp_path: Path) -> None:
    write_printed(tmp_path / "r.md", printed_results([]))
    assert "No study has been carried out yet" in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("*.png"))
