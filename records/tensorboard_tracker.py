"""Shows a run in TensorBoard.

Why tensorboard's own writer, and not torch's SummaryWriter, which is built on it: it needs no torch, which a
timing-only simulation does not load, and it is imported in 0.2 s.

Times: in a simulation an event's wall time is the virtual second, so the axis "Relative" shows virtual time. In a real
run it is when the run began plus the run's clock, so that "Relative" shows the same as in its simulation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import yaml
from ..config.callbacks import TensorBoardSpec
from ..program.callbacks import Callback, RoundRecord, RunStart
from ..program.errors import ScenarioError
from .directory import EVENTS
from .tracked import line_scalars, need, parameters, plain, round_scalars


class TensorBoardTracker(Callback):
    """The callback `tensorboard`. ScenarioError where it has no place to write to, or the package is missing.

    path: the scenario's key. directory: of the run.
    """

    def __init__(self, spec: TensorBoardSpec, path: str, directory: Path | None) -> None:
        need("tensorboard", path, "'paceline[tensorboard]'")
        if spec.folder is None and directory is None:
            raise ScenarioError(
                f"{path}: tensorboard writes into the run's directory, and there is none; give a folder"
            )
        self._spec = spec
        self._writer: Any = None
        self._zero = 0.0  # the wall time at which the run's clock shows 0

    def on_start(self, start: RunStart) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        begins = self._writer is None
        if begins:
            folder = self._spec.folder
            where = (start.directory or Path()) / EVENTS if folder is None else Path(folder) / start.name
            self._zero = 0.0 if start.virtual else time.time() - start.seconds
            self._writer = EventFileWriter(str(where))
            self._describe(start)
        if start.round or not begins:  # TensorBoard then forgets what it was told of later steps
            log = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=self._zero, step=start.step + 1, session_log=log))

    def _describe(self, start: RunStart) -> None:
        """Write the scenario as hyperparameters and as text."""
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.metadata import create_summary_metadata

        scenario = plain(start.scenario)
        text = "".join(f"    {line}\n" for line in yaml.dump(scenario).splitlines())  # indented: Markdown's code
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=TensorShapeProto())
        said = self._summary.Value(tag="scenario", metadata=create_summary_metadata("scenario", ""), tensor=tensor)
        settings = hparams_pb(parameters(scenario), trial_id=start.name, start_time_secs=self._zero)
        for summary in (settings, self._summary(value=[said])):
            self._writer.add_event(self._event(wall_time=self._zero, step=0, summary=summary))

    def on_report(self, line: Mapping[str, Any]) -> None:
        self._scalars(line_scalars(line), line["step"], line["seconds"])
        self._writer.flush()

    def on_round(self, record: RoundRecord) -> None:
        if record.round % self._spec.every == 0:
            self._scalars(round_scalars(record), record.step, record.seconds)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._writer.close()

    def _scalars(self, numbers: Mapping[str, float], step: int, seconds: float) -> None:
        values = [self._summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
        event = self._event(wall_time=self._zero + seconds, step=step, summary=self._summary(value=values))
        self._writer.add_event(event)
