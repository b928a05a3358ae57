"""The base classes of a scenario file's sections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema

from ..program.errors import brief
from .comments import comments_of


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """(the key's path, what is wrong there) of the first mistake that pydantic found."""
    first = error.errors(include_url=False, include_context=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")


class OpenSection(BaseModel):
    """A section that takes arguments of the user's own in addition to its keys."""

    model_config = ConfigDict(extra="allow", defer_build=True)


def described(section: BaseModel) -> dict[str, Any]:
    """The document that reads back as this section. Defaults are filled in, and keys without a value are left out.

    A user's own arguments stay as they are, also those that are null.
    """
    document = section.model_dump(mode="json", exclude_none=True)
    _keep_own(section, document)
    return document


def _keep_own(section: BaseModel, document: dict[str, Any]) -> None:
    """Put the user's own arguments back into a document as they are: pydantic has left out nulls and changed others."""
    values = dict(section)
    for name in _leading(type(section)):
        value = values[name]
        if isinstance(value, tuple):
            document[name] = list(map(_whole, value))
        elif isinstance(value, OpenSection):
            document[name] = _whole(value)
        elif isinstance(value, BaseModel):
            _keep_own(value, document[name])


def _whole(section: BaseModel) -> dict[str, Any]:
    if not isinstance(section, OpenSection):
        return described(section)
    own = section.model_extra or {}
    return {key: found for key, found in section if found is not None or key in own}


@cache
def _leading(kind: type[BaseModel]) -> tuple[str, ...]:
    """The fields that are open sections, or that contain one."""
    return tuple(name for name, field in kind.model_fields.items() if any(map(_is_open, _models(field.annotation))))


def _is_open(kind: type[BaseModel]) -> bool:
    return issubclass(kind, OpenSection) or bool(_leading(kind))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The model that an annotation is, or those of a union or a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, tuple):
        for inside in get_args(annotation):
            yield from _models(inside)


class Section(BaseModel):
    """A part of the scenario. Unknown keys are errors, and so is true or false where a number or a text belongs."""

    # defer_build: most sections never validate anything by themselves, and need no validator of their own.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """pydantic's, with the comments on the fields as their descriptions."""
        made = handler(schema)
        keys, said = handler.resolve_ref_schema(made)["properties"], comments_of(cls)
        for name, field in cls.model_fields.items():
            if name in said:
                keys[field.alias or name]["description"] = said[name]
        return made

    @model_validator(mode="before")
    @classmethod
    def _no_truth(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        if any(map(_has_truth, document.values())):
            for name, field in cls.model_fields.items():
                key = field.alias or name
                if _has_truth(value := document.get(key)):
                    taken = _plain(field.annotation)
                    if taken & {int, float, str} and not taken & {bool, Any}:
                        raise ValueError(f"{key} is {brief(value)}; write a number, or a text in quotes")
        return document


def _has_truth(value: Any) -> bool:
    """Whether a value of the document is true or false, or is made of such."""
    if isinstance(value, dict):
        return bool in map(type, value) or bool in map(type, value.values())
    return bool in map(type, value) if isinstance(value, list) else type(value) is bool


def _plain(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    inside = get_args(annotation)
    return set[Any]().union(*map(_plain, inside)) if inside else {annotation}


class Named(OpenSection):
    """Something that is chosen by name and may have arguments: `mlp` or `{name: mlp, hidden: [256, 128]}`."""

    model_config = ConfigDict(frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return value
        raise ValueError(f"{brief(value)}: write a name, or {{name: ..., argument: ...}}")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(schema)]}

    @property
    def args(self) -> dict[str, Any]:
        """The arguments, without the name."""
        return dict(self.model_extra or {})
