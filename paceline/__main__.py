"""The `paceline` command: how it ends. What a user can mend is one line on standard error and exit status 2.

Rule: an interrupt or a want of memory may come at any time, so that everything is imported inside.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    try:
        from .terminal import enduring

        status = enduring(lambda: _run(sys.argv[1:]))
    except KeyboardInterrupt:
        print("paceline: stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """The exit status of a command."""
    from .runtime.telling import EXPECTED, ends_as_users

    try:
        from .cli import app

        sys.path.append(os.getcwd())  # where a scenario's own package.module:factory is looked for
        return app.run(arguments)
    except EXPECTED as error:
        return _tell(error)
    except SystemExit as end:
        if ends_as_users(end):
            return _tell(end)
        raise


def _tell(error: BaseException) -> int:
    """Say what is wrong; 2, the exit status."""
    from .runtime.place import place
    from .runtime.telling import told

    here = place()
    if here is not None and here.rank > 0:
        import time

        time.sleep(1)  # without MPI, ranks cannot agree on who speaks; when the first one ends, mpirun ends the others
    print(told(error), file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
