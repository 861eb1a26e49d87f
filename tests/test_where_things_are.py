"""The page that says where things are names files and definitions that are there."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/reference/where-things-are.md"
ROW = re.compile(r"^\| .+ \| `(?P<file>\S+)` \| `(?P<name>\w+)` \|$", re.MULTILINE)
FILE = re.compile(r"`([\w/]+\.py)`")


def test_every_row_names_a_definition_of_its_file() -> None:
    rows = ROW.findall(text := PAGE.read_text(encoding="utf-8"))
    assert len(rows) == text.count("\n| ") - 1  # all but the head
    wrong = [
        (file, name)
        for file, name in rows
        if not re.search(
            rf"^\s*(def|class) {name}\b|^{name}\b.*=",
            (REPOSITORY / file).read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    ]
    assert wrong == []


def test_each_file_on_the_way_to_the_loss_names_the_next() -> None:
    """From `maporl train` to the loss in at most six files, each of which imports its next."""
    way = FILE.findall(PAGE.read_text(encoding="utf-8").split("\n| ")[0])
    assert len(way) <= 6
    for here, there in pairwise(way):
        text = (REPOSITORY / here).read_text(encoding="utf-8")
        *_, folder, module = Path(there).with_suffix("").parts
        named = rf"maporl_agents\.({folder}\.)?{module} import|{folder} import .*\b{module}\b"
        if folder == "algorithms":  # chosen by name in the registry of algorithms
            named = r"scheme_for\(config\)\.train_step"
        assert re.search(named, text), (here, there)
