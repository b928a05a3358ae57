"""docs/methods.md: each preset and each member of an axis, as `paceline explain` tells of them.

`paceline explain --page docs/methods.md` writes it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .algorithms.presets import PRESETS
from .algorithms.strategy import AXES
from .config.explanations import Explanation, explain
from .config.yaml import in_line
from .marked_page import begin_of, fill_page

BEGIN = begin_of("paceline explain --page")
QUESTIONS = {
    "split": "how is the work divided?",
    "schedule": "how many steps until the next sync?",
    "sampling": "which examples does a step use?",
    "aggregation": "what is exchanged, and with which weight?",
    "placement": "where do parameters live?",
}
_ARGUMENT = re.compile(r"^([\w ]+(?:, \w+)*): (?=\S)")


def write_methods(page: Path) -> None:
    """Fill in the page. ScenarioError where it cannot be written."""
    fill_page(page, BEGIN, content())


def content() -> str:
    """The part of the page between its marks."""
    lines = ["## Presets", ""]
    for name, preset in PRESETS.items():
        if name == preset.__name__:
            others = [other for other, same in PRESETS.items() if same is preset and other != name]
            lines += _section(name, explain(name)[0], others)
    for axis, members in AXES.items():
        lines += [f"## {axis}", "", f"The axis that answers: {QUESTIONS[axis]}", ""]
        for name in members:
            (told,) = (each for each in explain(name) if each.title == f"{name}, a member of {axis}")
            lines += _section(f"{axis}: {name}", told)
    return "\n".join(lines).rstrip()


def listed(text: str, names: set[str]) -> str:
    """A docstring as Markdown: each line that explains an argument, like `out: the run's directory`, is a list's item.

    names: of the arguments.
    """
    lines, inside = list[str](), False  # inside: of an item
    for line in text.replace("::\n", ":\n").splitlines():
        found = _ARGUMENT.match(line)
        item = bool(found and names >= set(found[1].split(", ")))
        if item != inside and lines and lines[-1] and (item or (line and not line.startswith(" "))):
            lines.append("")
        inside = item or (inside and line.startswith(" "))
        lines.append(f"- `{found[1]}`: {line[found.end() :]}" if found and item else line)
    return "\n".join(lines)


def _section(heading: str, told: Explanation, others: list[str] | None = None) -> Iterator[str]:
    yield f"### {heading}\n"
    yield listed(_escaped(told.text), {row.name for row in told.rows}) + "\n"
    if told.rows:
        comments = any(row.what for row in told.rows)
        yield f"| argument | takes | otherwise |{' what |' if comments else ''}"
        yield "|---|---|---|" + ("---|" if comments else "")
        for row in told.rows:
            default = f"`{row.otherwise}`" if row.otherwise not in ("", "must be given", "never") else row.otherwise
            cells = [f"`{row.name}`", _escaped(row.takes), default, *([_escaped(row.what)] if comments else [])]
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""
    if others:
        yield f"- also called {', '.join(f'`{other}`' for other in others)}"
    for source in told.sources:
        yield f"- source: {_linked(source)}"
    if told.axes:
        yield f"- axes: {', '.join(f'{axis} `{in_line(member)}`' for axis, member in told.axes.items())}"
    if told.splits:
        yield f"- splits that it takes: {', '.join(f'`{name}`' for name in told.splits)}"
    yield f"- in a scenario: `{told.line}`\n"


def _escaped(text: str) -> str:
    """Plain text as Markdown, except for what is in backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_\[\]])", r"\\\1", part.replace("<", "&lt;")) for part in parts[::2]]
    return "`".join(parts)


def _linked(source: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", _escaped(source))
