"""``maporl report``: one HTML page of a run or a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Report:
    """Make one self-contained HTML page of a run or a study; it opens offline.

    Example: maporl report runs/NAME
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_STUDY")]
    """A run folder, the folder of a study, or its study.json."""
    out: Path | None = None
    """The page; by default report.html in the folder."""

    def __call__(self) -> int:
        """Run the command; return the exit code."""
        from maporl_agents.webpage import write_page

        print(write_page(self.source, self.out))
        return 0
