"""Reading YAML as people write it: `1e-4` is a number, and a key given twice is an error.

Rule: a small file gives a small document. Aliases of lists and mappings, which can make a huge document of a few lines,
are refused, and so are tags, which can run code or change what a value means. Nesting is limited, for the readers.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ..program.errors import ScenarioError, brief

if yaml.__with_libyaml__:
    from yaml import CSafeLoader as _Parser
else:
    from yaml import SafeLoader as _Parser  # type: ignore[assignment]

DEPTH = 40  # levels of nested lists and mappings
LARGEST = 1 << 1023  # the largest whole number: a larger one may not fit into a float
LONGEST = 32 << 20  # characters in a file
_TAG = "tag:yaml.org,2002:"
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # only escapes like "\e" can spell them


class _Rules(yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """What is read differently than by PyYAML: a document's parts as they come from a parser."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A part of the document, before aliases are replaced and tags applied."""
        event: Any = self.peek_event()  # type: ignore[attr-defined]
        if isinstance(event, yaml.AliasEvent) and isinstance(self.anchors.get(event.anchor), yaml.CollectionNode):
            raise _mistake(f"*{event.anchor} repeats a list or a mapping, which is not allowed; write it out", event)
        if getattr(event, "tag", None) not in (None, f"{_TAG}str"):
            raise _mistake(f"tags like {event.tag.replace(_TAG, '!!')} are not allowed; write the value alone", event)
        if self._depth > DEPTH:
            raise _mistake(f"more than {DEPTH} levels of nested lists and mappings", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise _mistake("a key must be plain text", key_node)
            if key in seen:
                raise _mistake(f"key {brief(key)} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except ValueError as error:
            raise _mistake(f"{brief(node.value)} cannot be read: {error}", node) from None
        if isinstance(value, int) and abs(value) > LARGEST:
            raise _mistake(f"{brief(node.value)} is a number of {value.bit_length()} bits", node)
        if isinstance(value, str) and _UNWRITABLE.search(value):
            raise _mistake(f"{brief(value)} holds a control character, or half of one", node)
        return value


class _Loader(_Rules, yaml.SafeLoader):
    """Reads with PyYAML's own parser."""

    def __init__(self, text: str) -> None:
        yaml.SafeLoader.__init__(self, text)


class _FastLoader(_Rules, _Parser):
    """Reads with the parser of LibYAML, where PyYAML has it: in a third of the time."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        yaml.composer.Composer.__init__(self)


def _mistake(problem: str, found: Any) -> yaml.MarkedYAMLError:
    """The error for a part of the document (a node or an event)."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=found.start_mark)


# Dates, `<<` and `=` are read as text. 1e-4 is a number, although YAML 1.1 reads it as text: there a number with an
# exponent needs a dot and a sign.
_Rules.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.removeprefix(_TAG) not in ("timestamp", "merge", "value")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Rules.add_implicit_resolver(
    f"{_TAG}float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse(text: str, where: str) -> Any:
    """The document in `text`. `where` names it in errors (ScenarioError)."""
    if "\t" not in text:  # LibYAML takes tabs for spaces, PyYAML refuses them
        with suppress(yaml.YAMLError, ValueError):  # its errors are worded in another way
            return yaml.load(text, _FastLoader)
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        place = f"{where}:{error.problem_mark.line + 1}" if error.problem_mark else where
        raise ScenarioError(f"{place}: not valid YAML: {error.problem or 'unreadable'}") from None
    except yaml.reader.ReaderError as error:
        found = f"character #x{error.character:04x}" if isinstance(error.character, int) else "a byte"
        line = text.count("\n", 0, error.position) + 1
        raise ScenarioError(f"{where}:{line}: not valid YAML: {found}: {error.reason}") from None


def read_text(path: Path, where: str, encoding: str = "utf-8") -> str:
    """The text in a user's file. `where` names it in errors (ScenarioError)."""
    try:
        with path.open(encoding=encoding) as file:
            text = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise ScenarioError(f"{where}: no such file") from None
    except OSError as error:
        raise ScenarioError(f"{where}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # bytes that are not text, a name that cannot be one
        raise ScenarioError(f"{where}: cannot be read: {error}") from None
    if len(text) > LONGEST:
        raise ScenarioError(f"{where}: is longer than {LONGEST >> 20} million characters")
    return text


def read_mapping(path: Path, keys: str = "workload: and cluster:") -> dict[str, Any]:
    """The mapping in the file at `path`. ScenarioError where it cannot be read or is not a mapping."""
    document = parse(read_text(path, str(path)), str(path))
    if not isinstance(document, dict):
        raise ScenarioError(f"{path}: holds {type(document).__name__}; write keys such as {keys}")
    return document


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back unchanged: a text that looks like a number is quoted."""

    yaml_implicit_resolvers = _Rules.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True  # so that a person can read and correct the file


def dump(document: Any) -> str:
    """YAML text, with the keys in their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def in_line(value: Any) -> str:
    """A value as YAML in one line."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")
