"""Pausing this process for a time: it stops itself, and a helper process lets it go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from time import perf_counter

# The helper: for each line with a number of seconds, it waits so long, and then lets its parent go on until that says
# so with another line. Its input ends with the parent, and so does the helper.
_HELPER = """
import os, select, signal, sys
while line := sys.stdin.buffer.raw.readline():
    wait = float(line)
    while not select.select([0], [], [], wait)[0]:
        os.kill(int(sys.argv[1]), signal.SIGCONT)
        wait = 0.01
    if not sys.stdin.buffer.raw.readline():
        break
"""


class Pausing:
    """Pauses this process. Several threads may ask for it; the pauses come one after the other."""

    def __init__(self, process: int) -> None:
        self._pauses: list[tuple[float, float]] = []  # (start, end) by perf_counter
        self._lock = threading.Lock()
        line = [sys.executable, "-IS", "-c", _HELPER, str(process)]
        self._helper = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def pause(self, seconds: float) -> None:
        """Do nothing for so long, in no thread."""
        assert self._helper.stdin
        with self._lock:
            start = perf_counter()
            # Other threads may ask for it before this one can say when it was over.
            self._pauses.append((start, start + seconds))
            self._helper.stdin.write(f"{seconds!r}\n".encode())
            self._helper.stdin.flush()
            # A signal to this very thread: its stop comes before the next instruction, that of a process might not.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            self._pauses[-1] = (start, perf_counter())
            self._helper.stdin.write(b"\n")
            self._helper.stdin.flush()

    def within(self, start: float, stop: float) -> float:
        """Seconds of pauses between two moments, by perf_counter."""
        return sum(max(0.0, min(stop, end) - max(start, begin)) for begin, end in self._pauses)

    def close(self) -> None:
        """End the helper."""
        assert self._helper.stdin
        self._helper.stdin.close()
        self._helper.wait()
