"""The gradient as one flat vector, which is exchanged and then applied."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .flat_storage import views
from .optimizers import GradientList, Layout


class FlatGradients:
    """The gradient of one worker.

    vector: as long as the parameters that it keeps.
    views: of the vector, one for each trained parameter.

    Parameters that are not trained have gradient 0: the vector begins as zeros, and nothing else is written there.
    """

    def __init__(self, vector: Tensor, layout: Layout) -> None:
        self.views = layout.select(views(vector, layout.parameters))
        self._unreached = layout.unreached
        self._trained = vector if all(layout.trained) else None

    def keep(self, fresh: Sequence[Tensor | None]) -> None:
        """Copy autograd's gradients here, zeros where there is none."""
        every = zip(self.views, fresh, strict=True)
        if self._trained is not None:  # one call for all of them
            whole = [torch.zeros_like(v).view(-1) if g is None else g.view(-1) for v, g in every]
            torch.cat(whole, out=self._trained)
        else:
            for view, grad in every:
                view.zero_() if grad is None else view.copy_(grad)

    def exchanged(self) -> GradientList:
        """The mean gradients; None for a parameter that the loss reaches on no worker in this step.

        All workers see the same mean and know which parameters a loss may not reach, so they decide alike.
        """
        if not self._unreached:
            return self.views
        idle = {place for place in self._unreached if not self.views[place].any()}
        return [None if place in idle else view for place, view in enumerate(self.views)]
