"""The documentation's site: every page is in its navigation, every public name with its arguments in its reference."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import paceline
from kit.paths import DOCS, ROOT
from paceline.marked_page import END
from paceline.methods_page import BEGIN, content
from paceline.run import Run


def leaves(node: Any) -> Iterator[str]:
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from [each] if isinstance(each, str) else leaves(each)


def test_every_page_is_in_the_navigation():
    found = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(found) == len(set(found))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages - set(found) == set(), "enter it in `nav:` of mkdocs.yml, and in docs/index.md"
    assert set(found) - pages == {"commands.md"}, "mkdocs.yml names a page that is neither in docs nor made"


def test_every_public_name_is_in_the_reference():
    named = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(), re.M)
    assert sorted(named) == sorted([f"paceline.{name}" for name in paceline.__all__] + ["paceline.run.Run"])


def test_the_page_of_methods_is_what_the_code_says():
    assert f"{BEGIN}\n{content()}\n{END}" in (DOCS / "methods.md").read_text(), (
        "write it again: paceline explain --page docs/methods.md"
    )


def public() -> Iterator[tuple[str, Any]]:
    """Each public name, and what is public in classes."""
    for name, thing in [*((name, getattr(paceline, name)) for name in paceline.__all__), ("Run", Run)]:
        yield name, thing
        if inspect.isclass(thing):
            members = {key: value for kind in reversed(thing.__mro__[:-1]) for key, value in vars(kind).items()}
            for key, value in members.items():
                member = value.__func__ if isinstance(value, classmethod) else getattr(value, "func", value)
                if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    yield f"{name}.{key}", member


@pytest.mark.parametrize(("name", "thing"), list(public()), ids=lambda each: each if isinstance(each, str) else "")
def test_its_docstring_is_of_whole_sentences_and_names_its_arguments(name, thing):
    text = inspect.getdoc(thing)
    assert text, name
    assert re.match(r"[A-Z`(]", text), f"{name}: begins with a capital"
    assert re.search(r"[.`]$", text), f"{name}: ends with a full stop"
    first = text.split("\n\n")[0]
    assert re.search(r"(\.|::)$", first), f"{name}: its first paragraph is of whole sentences"
    if thing is paceline.LocalSync:
        text += inspect.getdoc(thing.__init__) or ""
    elif not inspect.isroutine(thing):  # an error, a property
        return
    arguments = [argument for argument in inspect.signature(thing).parameters if argument not in ("self", "cls")]
    assert [argument for argument in arguments if not re.search(rf"\b{argument}\b", text)] == [], name
    explained = {word for line in re.findall(r"^([a-z_]+(?:, [a-z_]+)*): ", text, re.M) for word in line.split(", ")}
    assert explained <= set(arguments), f"{name}: explains what it does not take"
