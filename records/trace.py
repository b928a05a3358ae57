"""trace.json.gz: spans per worker and lane in Chrome's trace-event format, which Perfetto opens."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .outcome import Span

Lanes = Mapping[str, Sequence[Span]]


def write_trace(path: Path, workers: Sequence[Lanes]) -> None:
    """Write one process per worker and one thread per lane; events go out one by one, so memory stays small."""
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4) as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        file.write(json.dumps({"ph": "M", "name": "paceline", "pid": 0, "args": {"workers": len(workers)}}))
        for worker, lanes in enumerate(workers):
            file.write(f',\n{{"ph":"M","name":"process_name","pid":{worker},"args":{{"name":"worker {worker}"}}}}')
            for thread, (lane, spans) in enumerate(lanes.items()):
                label = f'"pid":{worker},"tid":{thread}'
                file.write(f',\n{{"ph":"M","name":"thread_name",{label},"args":{{"name":{json.dumps(lane)}}}}}')
                for name, start, stop in spans:
                    # Microseconds, as the format wants; repr keeps the clock's last bits.
                    file.write(
                        f',\n{{"ph":"X","name":{json.dumps(name)},{label},"ts":{start * 1e6!r},'
                        f'"dur":{(stop - start) * 1e6!r}}}'
                    )
        file.write("\n]}\n")


def read_trace(path: Path) -> list[dict[str, list[Span]]]:
    """Spans by worker and lane, in seconds."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    lanes = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    workers: list[dict[str, list[Span]]] = [{} for _ in range(events[0]["args"]["workers"])]
    for event in events:
        if event["ph"] == "X":
            start = event["ts"] / 1e6
            span = (event["name"], start, start + event["dur"] / 1e6)
            workers[event["pid"]].setdefault(lanes[event["pid"], event["tid"]], []).append(span)
    return workers


def split_waits(workers: Sequence[Lanes]) -> list[dict[str, list[Span]]]:
    """Cut each collective's span, which a rank sees as one, into the wait for the last worker and the exchange.

    The k-th spans of a phase belong together; a phase of which workers have unequal numbers (groups) stays whole.
    Clocks are compared across workers: they start behind a barrier, so they are apart by about a latency.
    """
    latest: dict[tuple[str, int], float] = {}
    counts: list[Counter[str]] = [Counter(name for name, _, _ in lanes.get("network", ())) for lanes in workers]
    whole = {name for count in counts for name in count if any(c[name] != count[name] for c in counts)}
    for lanes in workers:
        for key, (_, start, _) in _numbered(lanes):
            latest[key] = max(start, latest.get(key, start))
    split = []
    for lanes in workers:
        spans: list[Span] = []
        for key, (name, start, stop) in _numbered(lanes):
            met = start if name in whole else min(latest[key], stop)
            if met > start:
                spans.append(("wait", start, met))
            spans.append((name, met, stop))
        split.append({lane: spans if lane == "network" else list(s) for lane, s in lanes.items()})
    return split


def _numbered(lanes: Lanes) -> Iterator[tuple[tuple[str, int], Span]]:
    """The network lane's spans with (phase, how many of the phase came before)."""
    seen: Counter[str] = Counter()
    for span in lanes.get("network", ()):
        yield (span[0], seen[span[0]]), span
        seen[span[0]] += 1
