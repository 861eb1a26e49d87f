"""The documentation as a site: every module and public name is on it, and it builds cleanly."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference" / "api"
ROOMS = {"maporl_env": ROOT, "maporl_agents": ROOT / "agents"}
NO_SPHINX = "no Sphinx: it needs Python 3.11 and the extra 'docs'"
# What is used by command, or runs inside another process, has no page.
INSIDE = re.compile(
    r"maporl_env\.jail\b|.*\.__main__|.*_worker"
    r"|maporl_agents\.(cli|terminal|commands|planning|studies|webpage)\b"
)


def modules() -> set[str]:
    """Each module that users call."""
    found = set()
    for package, room in ROOMS.items():
        for path in (room / package).rglob("*.py"):
            parts = path.relative_to(room).with_suffix("").parts
            found.add(".".join(parts).removesuffix(".__init__"))
    return {name for name in found if not INSIDE.match(name)}


def public_names() -> set[str]:
    contracts = runpy.run_path(str(ROOT / "tests" / "test_public_names.py"))
    types = {"maporl_env.types.Message", "maporl_env.types.Transcript"}
    return {*contracts["ENVIRONMENT"], *contracts["AGENTS"], *types}


def test_every_module_stands_once_on_the_pages() -> None:
    pytest.importorskip("sphinx", reason=NO_SPHINX)
    configuration = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(PAGES.glob("*.md")))
    blocks = configuration["MODULES_BLOCK"].findall(text)
    names = [name for block in blocks for name in block.split()]
    listed = Counter(module for name in names for module in configuration["modules_of"](name))
    listed["maporl_agents"] += 1  # its names are imported when they are asked for, so listed singly
    hint = "name each module once in a {modules} block of the pages in docs/reference/api"
    assert {name for name, count in listed.items() if count > 1} == set(), hint
    assert (modules() - set(listed), set(listed) - modules()) == (set(), set()), hint


def test_tables_and_code_of_docstrings_reach_sphinx_in_its_form() -> None:
    pytest.importorskip("sphinx", reason=NO_SPHINX)
    configuration = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    code = ["Given x:", "", "    y = x", "", "Args:", "    x: it."]
    marked = ["Given x:", "", "::", "", "    y = x", "", "Args:", "    x: it."]
    assert configuration["marked_code"](code) == marked
    assert configuration["marked_code"](marked) == marked
    assert configuration["marked_code"](["Given::", "", "    y"]) == ["Given::", "", "    y"]
    listed = [".. list-table::", "   :header-rows: 1", "", "   * - a", "     - b"]
    table = ["| a | b |", "|---|---|", "| 1 | 2 |"]
    assert configuration["tables_as_lists"](table) == [*listed, "   * - 1", "     - 2"]


def rows_without_head(page: str) -> list[str]:
    """Return the first row of every table that has no line of dashes below it."""
    lines = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL).split("\n")
    around = zip(["", *lines], lines, [*lines[1:], ""], strict=False)
    return [
        row
        for before, row, below in around
        if row.startswith("|") and not before.startswith("|")
        if not re.fullmatch(r"\|[ :|-]+", below)
    ]


def test_every_table_of_the_pages_has_a_head() -> None:
    """An empty line in a table makes text of the rows below it."""
    whole = "| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert rows_without_head(whole + "| 3 | 4 |\n") == []
    assert rows_without_head(whole + "\n| 3 | 4 |\n") == ["| 3 | 4 |"]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    found = {
        str(page.relative_to(ROOT)): rows_without_head(page.read_text("utf-8")) for page in pages
    }
    assert {page: rows for page, rows in found.items() if rows} == {}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    pytest.importorskip("sphinx", reason=NO_SPHINX)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, ROOT / "docs", out / "html", "-d", out / "doctrees"],
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_every_public_name_and_module_is_in_the_inventory(site: Path) -> None:
    compressed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = [line.split()[0] for line in zlib.decompress(compressed).decode().splitlines()]
    assert public_names() | modules() <= set(entries)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]*")
    imports = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//")
    assert len(list(site.rglob("*.html"))) > 30
    for page in site.rglob("*.html"):
        assert loads.search(page.read_text(encoding="utf-8")) is None, page.name
    for style in site.rglob("*.css"):
        assert imports.search(style.read_text(encoding="utf-8")) is None, style.name
