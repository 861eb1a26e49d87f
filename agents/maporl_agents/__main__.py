"""The program ``maporl``, also ``python -m maporl_agents``: the command line, where it can run.

Without the extra `train` the package is the environment alone, and the command line cannot be
imported: then one sentence says what to install.
"""

from __future__ import annotations

import sys

from maporl_env.missing_extra import missing_extra


def main() -> None:
    """Run the command line and exit; with code 2 where the extra `train` is not installed."""
    try:
        from maporl_agents import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("maporl_agents", "maporl_env"):
            raise  # a fault of ours, not a missing package
        print(f"maporl: {missing_extra('the command line', error.name, 'train')}", file=sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
