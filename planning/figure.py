"""The figure that `paceline plan --figures` saves."""

from __future__ import annotations

from pathlib import Path

from ..program.errors import ScenarioError
from .answer import Answer


def save_front(answer: Answer, folder: Path) -> Path:
    """Draw the front and the baselines into front.png in the folder. ScenarioError where it cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from ..analysis.front_figure import Point, front

    points = [
        Point(
            row.way.gap,
            row.epoch,
            row.spread,
            row.way.preset,
            ", ".join(role for role in row.roles if role != "front"),
            "front" in row.roles,
        )
        for row in answer.rows
    ]
    path = folder / "front.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        front(points).savefig(path, dpi=130)
    except OSError as error:
        raise ScenarioError(f"{folder}: figures cannot be written: {error.strerror}; name another folder") from None
    return path
