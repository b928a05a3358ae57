"""Reading YAML as people write it: `1e-4` is a number, a key given twice is an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..algorithms.errors import ScenarioError


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-4 for text: it wants a dot and a signed exponent.
_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse(text: str, where: str) -> Any:
    """The document in `text`; `where` names it in errors (ScenarioError)."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ScenarioError(f"{place}: not valid YAML: {problem or 'unreadable'}") from None


def read_mapping(path: Path, keys: str = "workload: and cluster:") -> dict[str, Any]:
    """The mapping in the file at `path`. ScenarioError where it cannot be read or is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None
    document = parse(text, str(path))
    if not isinstance(document, dict):
        raise ScenarioError(f"{path}: holds {type(document).__name__}, expected keys such as {keys}")
    return document


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back as the same: text that it would take for a number is quoted."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True  # a person reads and corrects the file


def dump(document: Any) -> str:
    """YAML text with the keys in their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
