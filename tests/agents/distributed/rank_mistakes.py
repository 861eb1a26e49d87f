"""Command lines that are wrong, one after the other in one process; run by `test_mistakes`."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from maporl_agents import cli


def main(file: Path) -> None:
    """Print the exit code and the sentences of every command of a JSON file, by name.

    Commands run in the folder `rank-N` beside the file where there is one: the disk of a machine.
    """
    if (own := file.parent / f"rank-{os.environ['RANK']}").is_dir():
        os.chdir(own)
    told = {}
    for name, words in json.loads(file.read_text()).items():
        printed = io.StringIO()
        with redirect_stderr(printed), redirect_stdout(io.StringIO()):
            try:
                cli.main([word.replace("{rank}", os.environ["RANK"]) for word in words])
            except SystemExit as end:
                code = end.code
        said = printed.getvalue().splitlines()
        told[name] = [code, [line for line in said if line.startswith("maporl:")]]
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
