"""Runs the command line in forked children, under limits: a child costs a few milliseconds, an import seconds.

A process of its own, without threads and without torch. It reads a line of JSON per run, {"folder", "arguments"}, and
answers with the run's end: its exit status, or minus the signal that ended it. In the folder, `work` is the run's
working folder, `out` and `err` are what it printed.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import pandas  # noqa: F401 - which a sweep loads when it makes its table
import typer

PROCESSOR_SECONDS = 20
MEMORY = 2 << 30  # bytes beyond what this process has mapped already
WALL_SECONDS = 600  # a far backstop for what waits without computing
WARNED = b"paceline: warning: simulating"  # begins the line that says in advance that a run takes long


def child(folder: Path, arguments: list[str], mapped: int) -> None:
    """Run the command line here, and end with its status."""
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder / "work")
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["paceline", *arguments]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def watch(process: int, folder: Path) -> int:
    """How the child ends. One that has said that it takes long has said what is asked of it, and is stopped: 0."""
    begun = time.monotonic()
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, 0.25)
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        warned = WARNED in (folder / "err").read_bytes()
        if warned or time.monotonic() - begun > WALL_SECONDS:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return 0 if warned else -signal.SIGKILL


def serve() -> None:
    """Answer runs until there are no more."""
    typer.main.get_command = functools.cache(typer.main.get_command)  # which takes half of a short run
    with contextlib.redirect_stdout(io.StringIO()):
        app.run(["catalogue"])  # what is loaded and made with the first command, children have already
    gc.freeze()  # objects that are not used stay on pages that parent and child share
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # to wait for one, with a time limit
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for line in sys.stdin:
        run = json.loads(line)
        process = os.fork()
        if process == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            child(Path(run["folder"]), run["arguments"], mapped)
        print(watch(process, Path(run["folder"])), flush=True)


if __name__ == "__main__":
    import paceline.learning.phantoms
    import paceline.printing
    import paceline.records.environment
    import paceline.runtime.launcher
    import paceline.sim.cohort
    import paceline.sim.engine
    import paceline.simulating
    import paceline.sweeping
    import paceline.training
    from paceline.__main__ import main
    from paceline.cli import app

    # A resumed run is checked here, and would go on under an mpirun of its own. Nor need files survive a power cut.
    paceline.runtime.launcher.launch = lambda *_, **__: 0
    os.fsync = lambda fd: None
    serve()
