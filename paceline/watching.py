"""`paceline watch`: what runs are doing, from their directories alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .analysis.following import Follower, Seen, State, is_place, runs_in
from .config.metrics import metrics_in
from .config.units import told_bytes, told_rate, told_seconds, told_whole
from .program.errors import ScenarioError, one_line
from .progress import DONE, FULL, NOT_DONE, UNKNOWN, WIDTH, draws, number, pace, where
from .records.live import Now
from .records.signs import LONGEST, MISSED
from .terminal import console

PERIOD = 0.5  # seconds between two looks
LINES = 10.0  # seconds between two lines about a run, where standard output is not a terminal
SHARES = 8  # workers that are told one by one
STYLES: dict[State, str] = {
    "none": "bright_black",
    "running": "cyan",
    "silent": "yellow",
    "stalled": "yellow",
    "restarting": "yellow",
    "finished": "green",
    "stopped": "yellow",
    "failed": "red",
    "lost": "red",
}


class Watched:
    """The runs that some paths stand for. A folder may get further ones."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._followers: dict[Path, Follower] = {}

    def look(self) -> list[Seen]:
        """What they do now."""
        found = dict.fromkeys(run for path in self._paths for run in runs_in(path))
        self._followers = {run: self._followers.get(run) or Follower(run) for run in found}
        return [follower.look() for follower in self._followers.values()]


def watch(paths: Sequence[Path], once: bool) -> int:
    """Show runs until all of them have ended, or once. Returns the exit status: 1 where one did not end well.

    ScenarioError where a path has something else than runs.
    """
    for path in paths:
        if path.exists() and not is_place(path):
            raise ScenarioError(f"{path}: holds no run; name a run's directory, or a folder of runs")
    watched = Watched(paths)
    if once:
        seen = watched.look()
        console().print(Group(*(shown(each) for each in seen)))
        return _status(seen)
    return _live(watched) if draws() else _in_lines(watched)


def _status(seen: Sequence[Seen]) -> int:
    return int(any(each.state in ("failed", "lost") for each in seen))


def _live(watched: Watched) -> int:
    """On a terminal: the same place is drawn again and again."""
    from rich.live import Live

    seen = watched.look()
    with Live(Group(*map(shown, seen)), console=console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        while not all(each.over for each in seen):
            time.sleep(PERIOD)
            seen = watched.look()
            live.update(Group(*map(shown, seen)), refresh=True)
    return _status(seen)


def _in_lines(watched: Watched) -> int:
    """Elsewhere: a line about a run when its state changes, after a recovery, and now and then."""
    told: dict[Path, tuple[tuple[State, int], float]] = {}
    while True:
        seen = watched.look()
        for each in seen:
            before, when = told.get(each.directory, (("", 0), 0.0))
            present = each.state, len(each.recoveries)
            if before != present or (each.state == "running" and time.monotonic() - when > LINES):
                told[each.directory] = present, time.monotonic()
                news = _recovered(each) if present[1] > before[1] else []
                print("  ".join(filter(None, (headline(each).plain, *_facts(each)[:2], *news))), flush=True)
        if all(each.over for each in seen):
            return _status(seen)
        time.sleep(PERIOD)


def shown(seen: Seen) -> Group:
    """A run in a few lines."""
    facts, now = (Text(f"  {fact}") for fact in _facts(seen)), seen.now
    if now is None or now.budget <= 0 or seen.over:
        return Group(headline(seen), *facts)
    drawn = ProgressBar(
        *(now.budget, min(now.progress, now.budget), WIDTH),
        style=NOT_DONE,
        complete_style=DONE,
        finished_style=FULL,
        pulse_style=UNKNOWN,
    )
    bar = Table.grid(padding=(0, 1, 0, 2))
    bar.add_row(drawn, _of_budget(now))
    return Group(headline(seen), bar, *facts)


def headline(seen: Seen) -> Text:
    """The run's name, its state, and why."""
    name, state = one_line(str(seen.directory), 200), seen.state
    words = {
        "none": "waiting for the run to begin",
        "silent": f"no sign of life for {told_seconds(seen.since)}",
        "stalled": f"stalled for {told_seconds(seen.since)}",
        "lost": "ended without a result",
    }.get(state, state)
    why = f": {one_line(seen.why, 300)}" if seen.why else ""
    return Text.assemble((name, "bold"), "  ", (words, STYLES[state]), why)


def _of_budget(now: Now) -> Text:
    progress = now.progress
    unit = now.unit if now.budget != 1 else now.unit.removesuffix("s")
    told = f"{progress:.2f}" if now.unit == "epochs" else told_whole(int(progress))
    return Text(f"{told} of {now.budget:,.10g} {unit} ({min(1.0, progress / now.budget):.0%})")


def _facts(seen: Seen) -> list[str]:
    """What is known of a run, a line each."""
    found = []
    if seen.summary is not None:
        found += list(_result(seen.summary))
    elif seen.now is not None:
        found.append("  ".join(filter(None, (where(seen.now), pace(seen.now)))))
    found += list(_learned(seen.last, seen.tested))
    found += list(_workers(seen))
    found += _recovered(seen)
    if seen.checkpoint is not None:
        name, age = seen.checkpoint
        found.append(f"last checkpoint: {name}" + ("" if seen.over else f", {told_seconds(age)} ago"))
    return found


def _recovered(seen: Seen) -> list[str]:
    """How it has gone on after losses: a line, if it has."""
    told = [f"{each.how} at {told_seconds(each.at)} from round {each.from_round}" for each in seen.recoveries[-4:]]
    return [f"recoveries: {len(seen.recoveries)} ({'; '.join(told)})"] if told else []


def _result(summary: Mapping[str, Any]) -> Iterator[str]:
    with suppress(KeyError, TypeError, ValueError):  # another version's, or damaged
        virtual = "" if summary["engine"] == "mpi" else " of virtual time"
        yield (
            f"{told_seconds(summary['seconds'], 4)}{virtual}, round {told_whole(summary['rounds'])}, "
            f"step {told_whole(summary['steps'])}, {told_rate(summary.get('samples_per_second'))}, "
            f"{told_bytes(max(summary['bytes_per_worker']))} sent per worker"
        )
        idle = summary.get("idle_by_class") or {}
        if idle:
            yield f"idle: {', '.join(f'{one_line(name, 40)} {share:.1%}' for name, share in idle.items())}"


def _learned(last: Mapping[str, Any], tested: Mapping[str, Any]) -> Iterator[str]:
    """The newest losses and metrics, and when they were."""
    known = {"training loss": last.get("train_loss")}
    known |= {"test loss": tested.get("test_loss")} | {name: tested.get(name) for name in metrics_in(tested)}
    told = [f"{name} {number(x)}" for name, x in known.items() if isinstance(x, int | float)]
    if told:
        yield f"{', '.join(told)} (round {last.get('round')})"


def _workers(seen: Seen) -> Iterator[str]:
    """Each worker: its idle share, and whether it waits or is silent."""
    if seen.over or not seen.signs:
        return
    names = seen.now.workers if seen.now is not None else ()
    told = []
    for rank, sign in islice(seen.signs.items(), SHARES):
        name = names[rank] if rank < len(names) else rank
        idle = "" if sign.idle is None else f" idle {sign.idle:.0%}"
        waits = f" (in {sign.waiting} for {told_seconds(sign.seconds)})" if sign.waiting and sign.seconds > 1 else ""
        silent = f" (no sign for {told_seconds(sign.age)})" if sign.age > MISSED * LONGEST else ""
        told.append((f"worker {name}", f"{idle}{silent or waits}"))
    if any(fact for _, fact in told):
        yield ", ".join(map("".join, told)) + (", ..." if len(seen.signs) > SHARES else "")
