"""The scenario's `callbacks:` section: what is told of a run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    GetJsonSchemaHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from ..program.callbacks import Callback
from ..program.errors import ScenarioError, brief
from .members import OWN, PATH, call, known, tag
from .sections import OpenSection, Section, first_mistake
from .units import Count


class CallbackSpec(Section):
    """A callback, which may also be written as its name alone."""

    name: str

    @model_validator(mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = super().__get_pydantic_json_schema__(schema, handler)
        return {"anyOf": [handler.resolve_ref_schema(whole)["properties"]["name"], whole]}


class TensorBoardSpec(CallbackSpec):
    """TensorBoard: report lines and rounds as scalars over the steps, at virtual time in a simulation."""

    name: Literal["tensorboard"]
    folder: str | None = None  # for the event files; by default `tensorboard` in the run's directory
    every: Count = 1  # rounds: of so many one is shown


class WandbSpec(OpenSection, CallbackSpec):
    """Weights & Biases, or another module with `init`, `log` and `finish`. Other keys are arguments of its `init`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Literal["wandb"]
    module: str = "wandb"  # which is imported, like trackio
    project: str = "paceline"  # to which the run belongs
    every: Count = 1  # rounds: of so many one is logged


class OwnCallbackSpec(OpenSection, CallbackSpec):
    """A subclass of paceline.Callback by its import path. Other keys are its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, WithJsonSchema(OWN)]


def _tag(section: Any) -> str | None:
    return tag({"name": section} if isinstance(section, str) else section)


AnyCallback = Annotated[
    Annotated[TensorBoardSpec, Tag("tensorboard")]
    | Annotated[WandbSpec, Tag("wandb")]
    | Annotated[OwnCallbackSpec, Tag(PATH)],
    Discriminator(_tag),
]

_ONE = TypeAdapter[Any](AnyCallback)


def own_callback(spec: OwnCallbackSpec, path: str) -> Callback:
    """The user's own callback. ScenarioError where there is none, or where its arguments are wrong.

    path: the scenario's key.
    """
    made = call(known(spec.name, {}, path, "callback"), spec.model_extra or {}, path, own=True)
    if not isinstance(made, Callback):
        raise ScenarioError(f"{path}: {spec.name} gives {brief(made)}, which is not a callback; see paceline.Callback")
    return made


def read_callbacks(given: Sequence[Any]) -> list[Callback | CallbackSpec]:
    """Callbacks that a Python program passes: objects, and others as a scenario spells them. ScenarioError."""
    if isinstance(given, str | Mapping | Callback):
        raise ScenarioError(f"callbacks is {brief(given)}; write a list, like callbacks=['tensorboard']")
    return [each if isinstance(each, Callback) else _read(place, each) for place, each in enumerate(given)]


def _read(place: int, given: Any) -> CallbackSpec:
    if isinstance(given, type) and issubclass(given, Callback):
        raise ScenarioError(f"callbacks[{place}]: is a class; make one, like {given.__name__}()")
    try:
        spec: CallbackSpec = _ONE.validate_python(given)
    except ValidationError as error:
        key, mistake = first_mistake(error)
        raise ScenarioError(
            f"callbacks[{place}]: {brief(given)}: {key}: {mistake}; write a paceline.Callback, tensorboard, wandb, or "
            f"{PATH} with its arguments"
        ) from None
    return spec
