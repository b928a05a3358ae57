"""What every part of a scenario file is made of."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from ..algorithms.errors import brief


class Section(BaseModel):
    """A part of the scenario: unknown keys are errors, and so are true and false where a number or a text belongs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        for name, field in cls.model_fields.items():
            key = field.alias or name
            value = document.get(key)
            inside = value if isinstance(value, list) else (value,)
            inside = (*value, *value.values()) if isinstance(value, dict) else inside
            if any(isinstance(item, bool) for item in inside):
                taken = _plain(field.annotation)
                if taken & {int, float, str} and not taken & {bool, Any}:
                    raise ValueError(f"{key} is {brief(value)}; write a number, or a text in quotes")
        return document


def _plain(annotation: Any) -> set[Any]:
    """The plain types that an annotation names."""
    inside = get_args(annotation)
    return set[Any]().union(*map(_plain, inside)) if inside else {annotation}


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
        raise ValueError(f"{brief(value)}: write a name, or {{name: ..., argument: ...}}")

    @property
    def args(self) -> dict[str, Any]:
        """The arguments beside the name."""
        return dict(self.model_extra or {})
