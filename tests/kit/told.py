"""A callback as users write one: it keeps all that it is told, in memory or in a file next to the run's directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline import Callback
from paceline.program.callbacks import RoundRecord, RunStart
from paceline.records.tracked import plain


@dataclass
class Told(Callback):
    """Keeps what it is told. It fails where it is asked to."""

    write: bool = False  # whether into a file
    fails: str = ""  # the method that fails
    said: list[Any] = field(default_factory=list, init=False)
    path: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.fails == "__init__":
            raise ValueError("fails as it is made")

    def on_start(self, start: RunStart) -> None:
        if self.write and start.directory is not None:
            self.path = file_of(start.directory)
        self.keep("on_start", [start.virtual, start.round, start.step])

    def on_report(self, line: Mapping[str, Any]) -> None:
        self.keep("on_report", plain(line))

    def on_round(self, record: RoundRecord) -> None:
        self.keep("on_round", plain(record._asdict()))

    def on_checkpoint(self, folder: Path) -> None:
        assert (folder / "meta.json").is_file()
        self.keep("on_checkpoint", folder.name)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self.keep(
            "on_end", {key: plain(summary[key]) for key in ("rounds", "steps", "samples", "epochs", "train_loss")}
        )

    def keep(self, method: str, value: Any) -> None:
        if method == self.fails:
            raise RuntimeError(f"{method} fails")
        self.said.append((method, value))
        if self.path is not None:
            with self.path.open("a") as file:
                print(json.dumps([method, value]), file=file)


def file_of(directory: Path) -> Path:
    """Where a Told with `write` keeps what it is told of the run in a directory."""
    return directory.with_name(f"{directory.name}.told")


def told(directory: Path) -> list[tuple[str, Any]]:
    """What a Told with `write` was told of the run in a directory, without what takes time."""
    said = [json.loads(text) for text in file_of(directory).read_text().splitlines()]
    return [(method, timeless(value)) for method, value in said if method != "on_start"]


def timeless(value: Any) -> Any:
    """A value without the keys that hold times."""
    return {k: v for k, v in value.items() if k not in ("seconds", "duration")} if isinstance(value, dict) else value
