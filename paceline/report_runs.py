"""The sections of a report that tell of runs: numbers, curves, times, memory, faults, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from .analysis import colours
from .analysis.bars import Bar, has_memory, memory_bars, time_bars
from .analysis.classes import classes
from .analysis.compare import compare, one_scenario
from .analysis.curves import AXES, bytes_per, curves
from .analysis.plots import TITLES, bar_plot, curve_plot, error_plot, round_plot, timeline_plot
from .analysis.run import Run
from .analysis.timeline_rows import MOST, Timeline, timeline
from .analysis.titles import source, titles
from .analysis.where import KINDS, seconds_by_kind
from .config import yaml
from .config.units import told_bytes, told_count, told_rate, told_seconds
from .printing import metric_told
from .report_page import Cell, Folded, Part, Plot, Plots, Section, Table, Words

FEW = 4  # runs that are columns of the table of numbers; more are rows
WORKERS = 64  # rows of a table of workers
Numbers = dict[str, Cell | str]


def sections(runs: Sequence[Run], spans: int = MOST) -> list[Section]:
    """All sections of some runs. spans: bars of all timelines together, at most."""
    found = [
        Section("Numbers", [_numbers(runs)]),
        _learning(runs),
        _predicted(runs),
        _time(runs),
        _timelines(runs, spans),
        _memory(runs),
        _faults(runs),
        Section("Where the runs come from", [part for run, title in _named(runs) for part in _origin(run, title)]),
    ]
    return [section for section in found if section.parts]


def seconds(value: float) -> Cell:
    """A time."""
    return Cell(told_seconds(value), value)


def share(value: float | None, form: str = ".1%") -> Cell | str:
    """A share; an empty text where it is not a number."""
    return "" if value is None or not isfinite(value) else Cell(format(value, form), value)


def size(value: float) -> Cell:
    """A number of bytes."""
    return Cell(told_bytes(value), value)


def count(number: float) -> Cell:
    """How many."""
    return Cell(told_count(number), number)


def _named(runs: Sequence[Run]) -> Iterator[tuple[Run, str]]:
    return zip(runs, titles(runs), strict=True)


def _numbers(runs: Sequence[Run]) -> Table:
    found = [_of_run(run, title) for run, title in _named(runs)]
    names = [*dict.fromkeys(name for each in found for name in each)]
    if len(runs) > FEW:
        return Table(names, [[each.get(name, "") for name in names] for each in found])
    columns = ["", *(str(each.pop("run")) for each in found)]
    names.remove("run")
    return Table(columns, [[name, *(each.get(name, "") for each in found)] for name in names], sortable=False)


def _of_run(run: Run, title: str) -> Numbers:
    s = run.summary
    found: Numbers = {"run": title}
    if run.directory:
        found["directory"] = str(run.directory)
    found |= {
        "numbers are": f"{source(run)}{', timing only' if s.get('timing_only') else ''} ({s['engine']})",
        "method": run.strategy,
        "workers": count(s["workers"]),
        "time": seconds(s["seconds"]),
        "rounds": count(s["rounds"]),
        "steps": count(s["steps"]),
        "samples": count(s["samples"]),
    }
    if s["seconds"]:
        speed = s["samples"] / s["seconds"]
        found["speed"] = Cell(told_rate(speed), speed)
    if s.get("seconds_per_epoch") is not None:
        found["time of an epoch"] = seconds(s["seconds_per_epoch"])
    for name, value in (("training loss", s.get("train_loss")), ("test loss", s.get("test_loss"))):
        if value is not None:
            found[name] = Cell(f"{value:.4f}", value)
    found |= {f"test {name}": Cell(metric_told(name, value), value) for name, value in run.test_metrics.items()}
    idle = s["idle_share"]
    found |= {"idle, mean": share(sum(idle) / len(idle)), "idle, most": share(max(idle))}
    found["sent by a worker, most"] = size(max(s["bytes_per_worker"]))
    for name in ("recoveries", "faults"):
        if s.get(name):
            found[name] = count(len(s[name]))
    if s.get("params_sha256"):
        found["parameters"] = f"sha256 {s['params_sha256'][:16]}..."
    if not s.get("finished", True):
        found["finished"] = "no, it was stopped"
    return found


def _learning(runs: Sequence[Run]) -> Section:
    found = curves(runs)
    if not found:
        return Section("Learning", [])
    plots = [Plot(TITLES.get(name, f"test {name}"), curve_plot(name, drawn, runs)) for name, drawn in found.items()]
    most = max((curve for drawn in found.values() for curve in drawn), key=lambda curve: curve.reports)
    lines = []
    if most.reports > len(most.y):
        lines.append(f"A curve has {len(most.y):,} of its {most.reports:,} reports, evenly spaced.")
    each = sorted({bytes_per(run)[0] for run in runs})
    lines.append(f"Bytes: those of the whole run, divided over its {' or '.join(each)}, which all send alike.")
    return Section("Learning", [Plots(plots, {axis: axis for axis in AXES}), Words(lines)])


def _predicted(runs: Sequence[Run]) -> Section:
    named = [*_named(runs)]
    pairs = [
        (one, other)
        for one in named
        for other in named
        if source(one[0]) == "simulated" and source(other[0]) == "measured" and one_scenario(one[0], other[0])
    ]
    parts: list[Part] = []
    for (predicted, title), (measured, other) in pairs:
        parts += _pair(predicted, measured, f"{title} and {other}" if len(pairs) > 1 else "")
    return Section("Predicted next to measured", parts)


def _pair(predicted: Run, measured: Run, title: str) -> Iterator[Part]:
    result = compare(predicted, measured)
    verdict = result.verdict(predicted, measured)
    what, *more = verdict.more
    yield Words([f"{title}: " * bool(title) + f"{verdict.text}: {what}", *more], verdict.good)
    rows: list[list[Cell | str]] = [
        ["time", *map(seconds, result.seconds), share(result.error, "+.1%")],
        ["time of a round", *map(seconds, result.per_round), share(_relative(*result.per_round), "+.1%")],
        ["between reports, median of |error|", "", "", share(result.per_report_error)],
    ]
    idle = [sum(run.summary["idle_share"]) / len(run.summary["idle_share"]) for run in (predicted, measured)]
    rows.append(["idle, mean", *map(share, idle), ""])
    yield Table(["", "predicted", "measured", "error"], rows, sortable=False)
    if predicted.lines and measured.lines:
        yield Plots(
            [
                Plot("time of a round", round_plot(predicted, measured)),
                Plot("error of the clock", error_plot(predicted, measured)),
            ]
        )
    if predicted.lanes and measured.lanes and len(predicted.lanes) == len(measured.lanes):
        yield _where_it_comes_from(predicted, measured)


def _relative(left: float, right: float) -> float | None:
    return left / right - 1 if right else None


def _where_it_comes_from(predicted: Run, measured: Run) -> Table:
    """By worker, how much more of each kind was predicted than measured."""
    pairs = list(zip(seconds_by_kind(predicted), seconds_by_kind(measured), strict=True))
    kinds = [kind for kind in KINDS if any(said[kind] or found[kind] for said, found in pairs)]
    whole = predicted.summary["seconds"] - measured.summary["seconds"]
    rows: list[list[Cell | str]] = []
    for worker, (said, found) in enumerate(pairs):
        parts = [said[kind] - found[kind] for kind in kinds]
        rows.append([str(worker), *(Cell(f"{part:+.4g}", part) for part in (*parts, whole))])
    caption = "predicted less measured, in seconds: where the difference is"
    return Table(["worker", *kinds, "whole"], rows[:WORKERS], caption)


def _time(runs: Sequence[Run]) -> Section:
    """How long workers compute, wait and exchange; without a trace only how long they compute."""
    rows: list[list[Cell | str]] = []
    traced = [run for run in runs if run.lanes]
    for run, title in _named(runs):
        kinds = seconds_by_kind(run) if run.lanes else []
        for each in classes(run):
            rows.append([title, each.told, *_class_times(run, each.workers, kinds)])
    columns = ["run", "workers", "computing", "idle, mean", "idle, most", "sent, most"]
    columns += ["exchange", "waiting"] if traced else []
    table = Table(columns, [row[: len(columns)] for row in rows])
    notes = [
        "Idle: the share of the time in which a worker does not compute. Exchange and waiting: what of this is the "
        "exchange itself, and waiting for others; what runs next to computing costs no time, so it does not count."
    ]
    if len(traced) < len(runs):
        notes.append("Exchange and waiting are known of traced runs alone: --set report.trace=true")
    parts: list[Part] = [table, Words(notes)]
    if traced:
        groups, unit = time_bars(traced)
        parts.insert(0, _bars("time by what it goes to", titles(traced), groups, colours.KINDS, unit))
    return Section("Where the time goes", parts)


def _class_times(run: Run, workers: Sequence[int], kinds: Sequence[Mapping[str, float]]) -> list[Cell | str]:
    s = run.summary
    idle, computing, sent = (
        [s[key][worker] for worker in workers] if len(s.get(key, ())) > max(workers) else []
        for key in ("idle_share", "computing_seconds", "bytes_per_worker")
    )
    found: list[Cell | str] = [seconds(sum(computing) / len(computing)) if computing else ""]
    found += [share(sum(idle) / len(idle)), share(max(idle))] if idle else ["", ""]
    found.append(size(max(sent)) if sent else "")
    for kind in ("exchange", "waiting"):
        whole = sum(sum(kinds[worker].values()) for worker in workers) if kinds else 0.0
        found.append(share(sum(kinds[worker][kind] for worker in workers) / whole) if whole else "")
    return found


def _bars(
    title: str, names: Sequence[str], groups: Sequence[Sequence[Bar]], areas: Mapping[str, colours.Area], unit: str
) -> Plot:
    rows = sum(map(len, groups)) + len(groups)
    return Plot(title, bar_plot(names, groups, areas, unit), 130 + 28 * rows)


def _timelines(runs: Sequence[Run], spans: int) -> Section:
    traced = [(run, title) for run, title in _named(runs) if run.lanes]
    plots: list[Part] = []
    for run, title in traced:
        found = timeline(run, spans // len(traced))
        document, height = timeline_plot(found)
        plots.append(Plot(title, document, height, _shown(run, found)))
    if not plots:
        return Section("Timeline", [])
    return Section("Timeline", [*plots, Words([HOW])])


HOW = (
    "Drag from left to right to zoom, and double-click for the whole run. Where there is too much to draw, each slice "
    "of a row is filled by the shares of what it has."
)


def _shown(run: Run, found: Timeline) -> str:
    """What of a trace is in the page, in words."""
    parts = []
    if len(found.workers) < len(run.lanes):
        parts.append(f"{len(found.workers)} of {len(run.lanes):,} workers are shown.")
    if not found.slice:
        return " ".join([*parts, f"All {found.spans:,} spans of the trace are here."])
    bars = sum(len(row.starts) for row in found.rows)
    kept = " and ".join(f"{first} to {last}" for first, last in found.kept)
    exact = f"; the spans of rounds {kept} are kept one by one" if kept else ""
    parts.append(
        f"The trace has {found.spans:,} spans here, too many for a page: they became {bars:,} bars. The time is cut "
        f"into slices of {told_seconds(found.slice)}, in which each kind fills its share of the height{exact}."
    )
    return " ".join(parts)


def _memory(runs: Sequence[Run]) -> Section:
    known = [run for run in runs if has_memory(run)]
    if not known:
        return Section("Memory", [])
    named = titles(known)
    groups, unit = memory_bars(known)
    parts: list[Part] = [_bars("memory at the peak, predicted", named, groups, colours.MEMORY, unit)]
    rows = [row for run, title in zip(known, named, strict=True) for row in _measured_memory(run, title)]
    if rows:
        columns = ["run", "workers", "predicted, all parts", "process grew by", "activations, predicted", "measured"]
        caption = "next to what was measured: the worker of each class that took most"
        parts.append(Table(columns, rows, caption))
    return Section("Memory", parts)


def _measured_memory(run: Run, title: str) -> Iterator[list[Cell | str]]:
    said, found = run.summary["memory_predicted"], run.summary.get("memory_measured")
    if not found:
        return
    for each in classes(run):
        if max(each.workers) >= len(found.get("resident_peak", ())):
            continue
        grown = max(found["resident_peak"][w] - found["resident_before"][w] for w in each.workers)
        whole = max(sum(part[w] for part in said.values()) for w in each.workers)
        activations = [max(part["activations"][w] for w in each.workers) for part in (said, found)]
        yield [title, each.told, size(whole), size(grown), *map(size, activations)]


def _faults(runs: Sequence[Run]) -> Section:
    struck: list[list[Cell | str]] = []
    recovered: list[list[Cell | str]] = []
    for run, title in _named(runs):
        for fault in run.summary.get("faults", ()):
            hit = "a link" if fault.get("worker") is None else f"worker {fault['worker']}"
            struck.append([title, fault["name"], hit, count(fault["round"]), seconds(fault["seconds"])])
        for each in run.summary.get("recoveries", ()):
            lost = ", ".join(map(str, each["lost"])) or "not known"
            numbers = [count(each[key]) for key in ("workers", "from_round", "redone")]
            times = [seconds(each[key]) for key in ("at", "seconds", "start")]
            recovered.append([title, each["how"], lost, *numbers, *times])
    parts: list[Part] = []
    if struck:
        parts.append(Table(["run", "fault", "hit", "rounds done", "at"], struck, "faults of the scenario that struck"))
    if recovered:
        columns = ["run", "how it went on", "lost workers", "workers after", "from round", "rounds done again"]
        parts.append(Table([*columns, "noticed at", "took", "of which start"], recovered, "recoveries"))
    return Section("Faults and recoveries", parts)


def _origin(run: Run, title: str) -> Iterator[Part]:
    """A run's environment, its history and its scenario, folded."""
    recorded = run.scenario.get("recorded") or {}
    lines = [f"{key}: {value}" for key, value in (recorded.get("environment") or {}).items()]
    lines += [f"priced by: {price}" for price in recorded.get("prices", ())]
    history = recorded.get("history") or []
    if lines:
        yield Folded(f"{title}: environment", "\n".join(lines))
    if history:
        yield Folded(f"{title}: history, {len(history)} part{'s' * (len(history) != 1)}", "\n".join(_parts(history)))
    document = {key: value for key, value in run.scenario.items() if key != "recorded"}
    if document:
        yield Folded(f"{title}: scenario", yaml.dump(document))


def _parts(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a run's history says of each of its parts. An environment is told where it differs from the one before."""
    before: Mapping[str, Any] = history[0].get("environment", {})
    for part in history:
        now = part.get("environment", {})
        told = {key: value for key, value in part.items() if key != "environment"}
        told |= {key: value for key, value in now.items() if before.get(key) != value}
        before = now
        yield yaml.dump(told)
