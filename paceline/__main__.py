"""The `paceline` command. A known error is one line on standard error and exit status 2."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    from .algorithms.errors import PacelineError
    from .cli import run
    from .terminal import enduring_output, say

    sys.path.append(os.getcwd())  # where a scenario's own package.module:factory is looked for
    with enduring_output():
        try:
            sys.exit(run())
        except PacelineError as error:
            say(str(error))
            sys.exit(2)


if __name__ == "__main__":
    main()
