"""docs/reference-code.md: every key that it maps a flag to is one that scenarios have."""

import re

from kit.paths import DOCS
from paceline.config.schema import scenario_schema

PAGE = (DOCS / "reference-code.md").read_text()
SECTIONS = ("workload", "cluster", "strategy", "budget", "report", "checkpoint")


def keys(node, definitions):
    """The keys of a section, whichever of its forms has them."""
    node = definitions.get(node.get("$ref", "").rpartition("/")[2], node)
    found = dict(node.get("properties", {}))
    for form in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
        found |= keys(form, definitions)
    return found


def test_every_key_exists():
    document = scenario_schema()
    named = re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)", PAGE)
    assert len(named) > 40
    for section, key in named:
        known = keys(document["properties"][section], document.get("$defs", {}))
        assert key in known or (section, key) == ("strategy", "placement"), f"{section}.{key}"
