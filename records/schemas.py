"""What the files of a run hold. A file that is damaged or was changed gives an error of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..config.sections import first_mistake
from ..program.errors import ScenarioError, one_line
from .recoveries import Natural, Recovery

Finite = Annotated[float, Field(allow_inf_nan=False)]
Number = Finite | None  # files hold null where a number is not finite


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)


class ReportLine(_Strict):
    """A report in metrics.jsonl."""

    round: Natural
    step: Natural
    samples: Natural
    seconds: Number
    epoch: Finite
    train_loss: Number = None
    test_loss: Number = None
    lr: Number = None
    step_losses: list[Number] | None = None
    __pydantic_extra__: dict[str, Number]  # metrics and others


class StruckFault(_Strict):
    """A fault of the scenario that has struck; see struck.py."""

    fault: Natural  # its number in the scenario's list
    name: str
    worker: Natural | None = None  # None: a link
    round: Natural  # rounds done
    seconds: Annotated[Finite, Field(ge=0)]  # since the start of the run, evaluation included


class Summary(_Strict):
    """The fields of summary.json that are read again."""

    engine: str
    workers: Annotated[int, Field(ge=1)]
    rounds: Annotated[int, Field(ge=1)]
    steps: Natural
    samples: Natural
    seconds: Annotated[Finite, Field(ge=0)]
    idle_share: Annotated[list[Finite], Field(min_length=1)]
    bytes_per_worker: Annotated[list[Finite], Field(min_length=1)]
    computing_seconds: list[Finite] = []
    syncs: dict[str, Natural] = {}  # by phase
    # Earlier versions did not write these four.
    epochs: Number = None
    samples_per_second: Number = None  # of all workers
    seconds_per_epoch: Number = None
    idle_by_class: dict[str, Finite] = {}  # of each class of equal workers the mean
    train_loss: Number = None
    test_loss: Number = None
    accuracy: Number = None
    metrics: list[str] = ["accuracy"]  # names; each is a field. Earlier versions wrote no names
    params_sha256: str | None = None
    recoveries: list[Recovery] = []
    faults: list[StruckFault] = []
    timing_only: bool = False
    memory_predicted: dict[str, list[Finite]] = {}  # by what it is, each worker's bytes
    memory_parts: dict[Literal["device", "host"], dict[str, list[Finite]]] = {}  # what these two are made of
    memory_measured: dict[str, list[Finite]] = {}  # by what it is, each worker's bytes

    @model_validator(mode="after")
    def _numbers(self) -> Summary:
        for name in self.metrics:
            value = dict(self).get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"the metric {name} is not a number")
        return self


class CheckpointMeta(BaseModel):
    """A checkpoint's meta.json. Earlier versions wrote neither sha256 nor subject."""

    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)

    workers: Annotated[int, Field(ge=1)]
    seconds: Annotated[Finite, Field(ge=0)]  # since the start of the run
    state: dict[str, Any]
    sha256: dict[str, str] = {}  # file name -> SHA-256; that of meta.json is of its contents without this entry
    subject: dict[str, Any] = {}  # what the run trains; see `paceline/resuming.py`


def parsed(text: str | bytes, where: str) -> Any:
    """The document in a JSON text; an integer that no float holds is infinite. `where` names it in a ScenarioError."""
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 300 else float(digits))
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{where}: is not JSON: {one_line(str(error), 120) or type(error).__name__}") from None


def checked(model: type[BaseModel], document: Any, where: str) -> None:
    """ScenarioError that names the first place where a document does not fit the model."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        place, message = first_mistake(error)
        shown = repr(place or type(document).__name__)[1:-1]
        raise ScenarioError(f"{where}: {shown[:60]}: {message[:160]}; no run wrote this") from None


def read_document(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """The JSON document in a file. ScenarioError where it does not fit the model."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    document = parsed(text, str(path))
    checked(model, document, str(path))
    found: dict[str, Any] = document
    return found


def read_lines(path: Path, resuming: bool = False) -> tuple[list[dict[str, Any]], bool]:
    """(the reports in metrics.jsonl, whether the last line was incomplete). A ScenarioError names a line that is wrong.

    resuming: a run that died may have left an incomplete last line. It is left out.
    """
    try:
        texts = path.read_bytes().splitlines() if path.exists() or not resuming else []
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    found: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        where = f"{path}:{number}"
        try:
            document = parsed(text, where)
        except ScenarioError:
            if resuming and number == len(texts):
                return found, True
            raise
        checked(ReportLine, document, where)
        found.append(document)
    return found, False
