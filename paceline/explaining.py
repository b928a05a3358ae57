"""`paceline explain` and `paceline schema`: what a preset, a member of an axis or a key of a scenario is."""

from __future__ import annotations

import json
import os
import sys

from rich.table import Table
from rich.text import Text

from .config.explanations import Explanation, explain
from .config.schema import scenario_schema
from .config.yaml import in_line
from .printing import plain_table
from .program.import_paths import named
from .terminal import console


def show_explanations(name: str) -> None:
    """Print all that has this name. ScenarioError where nothing has it."""
    if named(name):
        sys.path.append(os.getcwd())
    for number, explanation in enumerate(explain(name)):
        _show(explanation, first=number == 0)


def _show(told: Explanation, first: bool) -> None:
    shown = console(width=120)
    if not first:
        shown.print()
    shown.print(Text(told.title, "bold"))
    if told.text:
        shown.print(told.text)
    if told.rows:
        shown.print()
        shown.print(_rows(told))
    shown.print()
    facts = plain_table(show_header=False)
    for source in told.sources:
        facts.add_row("source", source)
    for axis, spelled in told.axes.items():
        facts.add_row(axis, in_line(spelled))
    if told.splits:
        facts.add_row("splits it takes", ", ".join(told.splits))
    facts.add_row("scenario", told.line)
    shown.print(facts)


def _rows(told: Explanation) -> Table:
    table = plain_table(told.heading if told.rows[0].name else "", "takes", "otherwise", "")
    for row in told.rows:
        table.add_row(*row)
    return table


def show_schema() -> None:
    """Print the JSON schema of a scenario."""
    print(json.dumps(scenario_schema(), indent=2, ensure_ascii=False))
