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
    except MemoryError:  # too little to say more
        print("paceline: not enough memory; see `free` and `ulimit -v`", file=sys.stderr)
        status = 2
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """The exit status of a command."""
    from .runtime.tracebacks import EXPECTED, of_users_code, tell

    try:
        _check_folder()
        from .cli import app

        return app.run(arguments)
    except EXPECTED as error:
        tell(error)
    except KeyboardInterrupt:
        raise
    except BaseException as end:  # SystemExit, and what a user's code raises that is not an Exception either
        if not of_users_code(end):  # else, whatever status it wanted, the work is not done
            raise
        tell(end)
    return 2


def _check_folder() -> None:
    """ScenarioError where the working folder has been removed: torch's libraries then end the process."""
    from .program.errors import ScenarioError

    try:
        os.getcwd()
    except OSError:
        raise ScenarioError(
            "the working folder has been removed; change to one that exists (cd), then begin again"
        ) from None


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder, which comes after a scenario's own (LearningProblem.look_for_modules)
    main()
