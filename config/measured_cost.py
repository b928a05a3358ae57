"""What a user's model costs, as profiles keep it: it was counted once, and need not be counted or even built again."""

from __future__ import annotations

from pydantic import Field

from ..algorithms.costs import Cut, ModelCost, together
from .sections import Section


class MeasuredUnit(Section):
    """One unit of the model; see algorithms.costs.ModelCost."""

    parameters: int = Field(ge=0)  # elements
    buffers: int = Field(default=0, ge=0)  # elements of those that are averaged for an evaluation
    flops: float = Field(default=0.0, ge=0)  # of one sample's forward pass
    activations: float = 0.0  # bytes that one sample's forward pass allocates
    shared: bool = False  # whether later units use its parameters, too
    begins: str = ""  # the module whose call begins it; empty for the first
    names: tuple[str, ...] = ()  # of its parameters, where the model was cut at the calls of its blocks


class MeasuredCost(Section):
    """A model and its units. It is valid for one shape of inputs; see `cost_key`."""

    units: tuple[MeasuredUnit, ...] = Field(min_length=1)
    whole: str = ""  # why it is one unit, where it cannot be cut

    @classmethod
    def of(cls, cost: ModelCost) -> MeasuredCost:
        """The section for a cost."""
        cut = cost.cut or Cut((), ((),) * len(cost.units))
        begins = ("", *cut.begins) if cost.cut else ("",) * len(cost.units)
        units = [
            MeasuredUnit(
                parameters=unit.parameters,
                buffers=unit.buffers,
                flops=unit.flops,
                activations=unit.activations,
                shared=unit.shared,
                begins=path,
                names=names,
            )
            for unit, path, names in zip(cost.units, begins, cut.parameters, strict=True)
        ]
        return cls(units=tuple(units), whole=cut.whole)

    def read(self) -> ModelCost:
        """The cost again, equal to the last bit."""
        units = [ModelCost(u.parameters, u.buffers, u.flops, u.activations, shared=u.shared) for u in self.units]
        cost, cut = together(units), None
        if any(unit.names for unit in self.units):
            cut = Cut(tuple(u.begins for u in self.units[1:]), tuple(u.names for u in self.units), self.whole)
        return ModelCost(cost.parameters, cost.buffers, cost.flops, cost.activations, cost.units, cut=cut)
