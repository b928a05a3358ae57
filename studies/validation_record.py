"""The record of a validation: a JSON file that holds all that has been run, so that it can go on.

Rule: the whole file is written again after each run. A case whose scenario or options have changed starts over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..program.errors import ScenarioError
from ..records.directory import to_json, write_atomically

FORMAT = 2  # of the file


class Record:
    """What has been run.

    document: {"format", "environment", "cases": {name: kept}}. A case's `kept` has
    base, family, group, rounds (see `judgement.verdict`), where (see `validation.World.where`), error.
    """

    def __init__(self, path: Path, environment: Mapping[str, Any], force: bool = False) -> None:
        """force: begin again. ScenarioError where the file is not a record, or cannot be written."""
        self.path = path
        self.document: dict[str, Any] = {"format": FORMAT, "environment": {}, "cases": {}}
        if path.exists() and not force:
            self.document |= read_record(path)
        self.document["environment"] = dict(environment)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.save()
        except OSError as error:
            raise ScenarioError(
                f"{path}: cannot be written: {error.strerror}; name another folder with --out"
            ) from None

    def begin(self, case: str, base: str, family: str, group: str) -> bool:
        """Take a case into the record; whether what the record held of it is dropped, since its base differs."""
        kept = self.document["cases"].get(case)
        known = {"base": base, "family": family, "group": group, "error": ""}
        if kept is None or kept["base"] != base:
            self.document["cases"][case] = {**known, "rounds": []}
            return kept is not None and bool(kept["rounds"])
        kept |= known
        return False

    def case(self, name: str) -> dict[str, Any]:
        """What is kept of a case."""
        found: dict[str, Any] = self.document["cases"][name]
        return found

    def round(self, name: str, number: int) -> dict[str, Any]:
        """What is kept of a case's round, counted from 1. An empty one is added where it is missing."""
        rounds = self.case(name)["rounds"]
        while len(rounds) < number:
            rounds.append({})
        found: dict[str, Any] = rounds[number - 1]
        return found

    def save(self) -> None:
        """Write the file."""
        write_atomically(self.path, to_json(self.document, indent=1).encode())


def read_record(path: Path) -> dict[str, Any]:
    """The document in a file. ScenarioError where no validation wrote it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, and this version writes {FORMAT}")
        for kept in document["cases"].values():
            if not (isinstance(kept["base"], str) and isinstance(kept["rounds"], list)):
                raise ValueError("a case has no base or no rounds")
        return {"cases": document["cases"]}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ScenarioError(
            f"{path}: is not the record of a validation: {error!r}; write --force to begin again, or name another "
            "folder with --out"
        ) from None
