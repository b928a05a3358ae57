"""What every part of a scenario file is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of the scenario: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Named(BaseModel):
    """Something chosen by name, with its own arguments: `mlp` or `{name: mlp, hidden: [256, 128]}`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return value
        raise ValueError(f"{value!r:.60}: write a name, or {{name: ..., argument: ...}}")

    @property
    def args(self) -> dict[str, Any]:
        """The arguments beside the name."""
        return dict(self.model_extra or {})
