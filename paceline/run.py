"""A finished run, as `simulate`, `train` and `load` return it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .analysis import run as analysis
from .program.errors import ScenarioError

if TYPE_CHECKING:
    from torch import nn


class Run(analysis.Run):
    """A finished run. It adds the trained model, which needs torch, to what `analysis` reads."""

    def model(self, round: int | None = None) -> nn.Module:
        """The trained model on the CPU, in evaluation mode, from the run's newest checkpoint.

        round: take the checkpoint after so many rounds instead.

        Its parameters are those of every worker after the round's sync. BatchNorm's statistics are those with which the
        run evaluates; other buffers are worker 0's. ScenarioError where the run has no weights, or no such checkpoint.
        """
        from .exporting import trained

        if self.directory is None:
            raise ScenarioError("the run has no directory, so it kept no weights; give it one with out='runs/NAME'")
        return trained(self.directory, round).model


load = Run.load  # paceline.load
