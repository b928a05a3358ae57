"""The points of a sweep, from grids and lists. A point says which values some of the scenario's keys take.

Rule: a point is a mapping from key paths (`cluster.network.latency`) to values as a scenario file holds them. Two
points that look the same in the table are one point.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from ..config import yaml
from ..program.errors import ScenarioError, brief, one_line

Point = dict[str, Any]
Identity = tuple[str, ...]
MOST = 1_000_000  # points in a sweep


def parse_grid(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Key -> values, from texts like "a.b=1,2,4". A value that contains a comma is written in quotes or brackets."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        where = f"--grid {one_line(text, 100)}"
        if not equals or not key or not values.strip():
            raise ScenarioError(f"{where}: write it like --grid workload.batch=16,32,64")
        if key in found:
            raise ScenarioError(f"{where}: {one_line(key, 60)} is given twice; write its values in one --grid")
        found[key] = yaml.parse(f"[{values}]", where)
    return found


def read_list(path: Path) -> list[Point]:
    """The points in a CSV file (a column per key; an empty cell leaves the key as it is) or a YAML list of mappings.

    ScenarioError where the file is neither.
    """
    text = yaml.read_text(path, f"--list {path}", "utf-8-sig")
    points = _csv(text, path) if path.suffix == ".csv" else yaml.parse(text, str(path))
    return check_points(points, f"--list {path}")


def check_points(points: Any, where: str) -> list[Point]:
    """`points` as a list of mappings, each with a key at least. ScenarioError where it is something else."""
    if not isinstance(points, Sequence) or isinstance(points, str) or not points:
        raise ScenarioError(f"{where}: holds no points; write a list like [{{workload.batch: 32}}, ...]")
    for number, point in enumerate(points):
        if not isinstance(point, Mapping) or not point or not all(isinstance(key, str) for key in point):
            raise ScenarioError(f"{where}: point {number} is {brief(point)}; write {{key: value, ...}}")
    return [{key: _plain(value) for key, value in point.items()} for point in points]


def _csv(text: str, path: Path) -> list[Point]:
    value = lru_cache(maxsize=4096)(lambda cell: yaml.parse(cell, str(path)))
    points = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        heads = [key.strip() for key in reader.fieldnames or ()]
        for key in heads:
            if not key or heads.count(key) > 1:
                raise ScenarioError(
                    f"--list {path}:1: {brief(key)} must head one column, and name a key of the scenario"
                )
        for row in reader:
            if None in row or None in row.values():
                raise ScenarioError(f"--list {path}:{reader.line_num}: does not have as many cells as the first line")
            points.append({key.strip(): value(cell) for key, cell in row.items() if cell.strip()})
    except csv.Error as error:
        raise ScenarioError(f"--list {path}:{reader.line_num}: {error}") from None
    return points


def cross(grid: Mapping[str, Sequence[Any]], points: Sequence[Point] = ()) -> list[Point]:
    """Every combination of the grid's values with every given point, in order and without repetitions.

    ScenarioError where a key is in both grid and points, where a key has no values, or where nothing varies.
    """
    for key, values in grid.items():
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable) or not list(values):
            raise ScenarioError(
                f"grid {one_line(key, 60)}: {brief(values)} is not a list of values; write one, like [1, 2, 4]"
            )
    both = set(grid).intersection(*map(set, points)) if points else set()
    if both:
        raise ScenarioError(f"{one_line(min(both), 60)} is both in the grid and in the list; keep one")
    if not grid and not points:
        raise ScenarioError("nothing varies; name keys with --grid a.b=1,2,4 or --list FILE")
    count = math.prod(len(list(values)) for values in grid.values()) * max(1, len(points))
    if count > MOST:
        raise ScenarioError(f"the values make {count} points, more than {MOST}; sweep fewer at a time")
    combinations = [dict(zip(grid, map(_plain, values), strict=True)) for values in product(*grid.values())]
    found = [{**point, **more} for point in points or [{}] for more in combinations]
    keys, unique = keys_of(found), dict[Identity, Point]()
    for point in found:
        unique.setdefault(identity(point, keys), point)
    return list(unique.values())


def _plain(value: Any) -> Any:
    """A NumPy number as a Python number, which scenarios accept."""
    return value.item() if hasattr(value, "item") else value


def keys_of(points: Iterable[Point]) -> list[str]:
    """The keys that vary, in the order in which they appear."""
    return list(dict.fromkeys(key for point in points for key in point))


def cell(value: Any) -> Any:
    """A value as the table shows it: numbers and texts as they are, anything else as JSON, which YAML can read."""
    return value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False, default=str)


def identity(point: Mapping[str, Any], keys: Sequence[str]) -> Identity:
    """What distinguishes a point: the texts of its cells, with an empty text where it leaves a key as it is."""
    return tuple(str(cell(point[key])) if key in point else "" for key in keys)
