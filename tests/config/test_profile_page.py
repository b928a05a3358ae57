"""docs/profiles.md explains every key of a profile: its tables are compared with the model's fields."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from kit.paths import DOCS
from paceline.config.profile import Profile
from paceline.config.units import Bandwidth, Duration, FreeBandwidth, Seconds

UNITS = ((Seconds, "s"), (Duration, "s"), (Bandwidth, "bytes/s"), (FreeBandwidth, "bytes/s"))


def fields(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(path, unit) of each value in a section. A name that the file's author chooses is *."""
    for name, field in section.model_fields.items():
        hint = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        yield from ((f"{name}{path}", unit) for path, unit in values(hint))


def values(hint: Any) -> Iterator[tuple[str, str]]:
    if unit := next((unit for known, unit in UNITS if same(hint, known)), ""):
        yield "", unit
    elif get_origin(hint) is Annotated:
        yield from values(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        yield from values(inner)
    elif get_origin(hint) is dict:
        yield from ((f".*{path}", unit) for path, unit in values(get_args(hint)[1]))
    elif get_origin(hint) is tuple:
        yield from values(get_args(hint)[0])
    elif isinstance(hint, type) and issubclass(hint, BaseModel):
        yield from ((f".{path}", unit) for path, unit in fields(hint))
    else:
        yield "", ""


def same(hint: Any, known: Any) -> bool:
    """Whether two hints take the same values in the same unit. Pydantic keeps a field's metadata apart, in a list."""
    return get_origin(hint) is Annotated and list(hint.__metadata__) == list(known.__metadata__)


def documented() -> dict[str, str]:
    """The same from the page: each table stands under the heading of its top-level key."""
    found: dict[str, str] = {}
    for section in re.split(r"^### ", (DOCS / "profiles.md").read_text(), flags=re.M)[1:]:
        name, rows = re.match(r"`(\w+)`", section), re.findall(r"^\|([^|]*)\|([^|]*)\|[^|]*\|$", section, re.M)
        assert name, section[:40]
        for key, unit in rows[2:]:
            path = ".".join(filter(None, (name[1], key.strip(" `"))))
            found[re.sub(r"\b[A-Z]+\b", "*", path)] = unit.strip()
    return found


def test_every_key_of_a_profile_is_documented_with_its_unit():
    page = documented()
    people = {"max_batch.*.*": "samples", "memory.*.*": "bytes"}  # numbers without a unit in the file
    assert page == {**dict(fields(Profile)), **people}
    assert ("network.pairs.bandwidth", "bytes/s") in page.items()
    assert len(page) > 25
