"""The `paceline` command. A known error is one line on standard error and exit status 2."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    from .algorithms.errors import PacelineError
    from .cli import app

    try:
        app(standalone_mode=True)
    except PacelineError as error:
        print(f"paceline: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    if sys.path[0] in ("", os.getcwd()):  # `-m` puts it first; a scenario's own folders come first (wiring.resolve)
        del sys.path[0]
    main()
