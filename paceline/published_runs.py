"""`paceline validate --published`: reads the groups, calibrates and predicts each, and shows and writes the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .config.published import (
    NotSaid,
    PublishedGroup,
    PublishedRow,
    Unit,
    load_published,
    nodes_of,
    not_stated,
    preset_of,
    run_of,
    unit_of,
)
from .marked_page import begin_of, check_page, fill_page, write_text
from .printing import plain_table, right
from .program.errors import ScenarioError
from .publishing import DRAWN, EFFICIENCY, SIGMA, RowSimulation, simulation_from, simulation_of
from .records.directory import to_json
from .studies.published import Point, Unexplained, Way, from_smallest, from_two
from .studies.published_table import SUMMARY, Group, Line, cells, headings, markdown, number, record, summary_rows
from .terminal import console

PACKAGED = Path(__file__).parent / "scenarios" / "validation" / "published"
BEGIN = begin_of("paceline validate --published")


def validate_published(files: Sequence[Path] = (), json: Path | None = None, page: Path | None = None) -> None:
    """Predict published runs, and print published and predicted numbers.

    files: with the groups; by default those that come with Paceline.
    json: where to write everything as JSON.
    page: a Markdown page whose part between BEGIN and END is replaced by the tables.
    """
    named = load_published(files or sorted(PACKAGED.glob("*.yaml")))
    if page:
        check_page(page, BEGIN)
    table = plain_table("group", right("workers"), right("published"), *map(right, headings()), "not predicted")
    groups = []
    for name, given in named.items():
        group = judge(name, given)
        groups.append(group)
        for line in group.lines:
            table.add_row(
                name, str(line.workers), f"{number(line.published)} {line.unit}", *cells(group, line), line.why
            )
    total = plain_table(*SUMMARY)
    for row in summary_rows(groups):
        total.add_row(*row)
    silent = plain_table("does not count", "why")
    for group in groups:
        if group.why:
            silent.add_row(group.name, group.why)
    console(width=400).print(table, "", silent, "", total, sep="\n")
    if json:
        constants = {"link_efficiency": EFFICIENCY, "worker_sigma": SIGMA, "gpus_drawn": DRAWN}
        write_text(json, f"{to_json({'constants': constants} | record(groups))}\n")
    if page:
        fill_page(page, BEGIN, markdown(groups))


def judge(name: str, given: PublishedGroup) -> Group:
    """A group's rows, predicted where they can be simulated; elsewhere by perfect scaling and the fit alone."""
    found = [_read(given, row) for row in given.rows]
    simulated = [row for row in found if row.simulation is not None]
    why = "" if simulated else found[0].why
    try:
        ways = _ways(simulated) if simulated else {}
    except (Unexplained, ScenarioError) as reason:
        simulated, ways, why = [], {}, str(reason)
    if not simulated:
        simulated = [row for row in found if row.point is not None]
        ways = _ways(simulated, alone=True) if simulated else {}
    places = {id(row): place for place, row in enumerate(simulated)}
    lines = [row.line(places.get(id(row)), why) for row in found]
    points = [row.point for row in simulated if row.point is not None]
    secondary = "the source is a secondary one" if given.evidence == "2nd" else ""
    return Group(name, given.source, why or secondary or not_stated(given), tuple(lines), tuple(points), ways)


@dataclass(frozen=True, eq=False)
class _Row:
    """A row as read: with a simulation, or with the reason why there is none."""

    row: PublishedRow
    unit: Unit | None
    point: Point | None
    simulation: RowSimulation | None
    why: str

    def line(self, place: int | None, why: str) -> Line:
        """The row in the table. why: what is missing in the whole group."""
        value = self.unit.published if self.unit else float
        row = self.row
        return Line(row.workers, row.devices, row.measured, row.unit, self.why or why, value, place)


def _read(given: PublishedGroup, row: PublishedRow) -> _Row:
    """Read a row, and make its simulation where all is given."""
    unit, point = None, None
    try:
        unit = unit_of(row)
        point = Point(row.workers, row.method or given.method, unit.pace(row.measured), several=False)
        point = replace(point, method=preset_of(given, row), several=nodes_of(row) > 1)
        if row.scenario is not None:
            return _Row(row, unit, point, simulation_from(row.scenario, 1.0), "")
        return _Row(row, unit, point, simulation_of(run_of(given, row)), "")
    except (NotSaid, ScenarioError) as reason:
        return _Row(row, unit, point, None, str(reason))


def _ways(rows: Sequence[_Row], alone: bool = False) -> dict[str, Way]:
    """The two ways on these rows. alone: without Paceline's prediction."""
    points = [row.point for row in rows if row.point is not None]

    def predict(place: int, speed: float, across: float, inside: float) -> float:
        simulation = rows[place].simulation
        assert simulation is not None
        return simulation.pace(speed, across, inside)

    ways = {"a": from_two(points, None if alone else predict), "b": from_smallest(points, None if alone else predict)}
    return {key: way for key, way in ways.items() if way is not None}
