"""The `paceline` command and how it ends. A mistake that the user can mend is one line on standard error, status 2.

Rule: an interrupt may come at any time and memory may run out at any time, so everything is imported inside functions.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys


def main() -> None:
    """Run the command line."""
    # The system takes all memory back at once. Looking for cycles among torch's objects first would take 0.3 s.
    atexit.register(gc.freeze)
    try:
        from .terminal import enduring

        status = enduring(lambda: _run(sys.argv[1:]))
    except KeyboardInterrupt:
        print("paceline: stopped", file=sys.stderr)
        status = 130
    except MemoryError:  # too little is left to say more
        print("paceline: not enough memory; see `free` and `ulimit -v`", file=sys.stderr)
        status = 2
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run a command; returns its exit status."""
    from .runtime.tracebacks import EXPECTED, exit_status, of_users_code, tell

    try:
        _check_folder()
        from .cli import app

        return app.run(arguments)
    except EXPECTED as error:
        tell(error)
        return exit_status(error)
    except KeyboardInterrupt:
        raise
    except BaseException as end:  # SystemExit, and exceptions of a user's code that are not an Exception
        if not of_users_code(end):  # a user's code that ends the program has not done its work, whatever its status
            raise
        tell(end)
    return 2


def _check_folder() -> None:
    """ScenarioError where the working folder has been removed: torch's libraries would end the process."""
    from .program.errors import ScenarioError

    try:
        os.getcwd()
    except OSError:
        raise ScenarioError(
            "the working folder has been removed; change to an existing one (cd) and begin again"
        ) from None


if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The working folder. A scenario's own folder comes before it (folders.look_for_modules).
        del sys.path[0]
    main()
