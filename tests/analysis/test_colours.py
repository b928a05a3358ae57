"""The colours: each has one meaning, and readers who see colours otherwise can tell them apart, as can grey paper."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import get_args

import numpy as np
import pytest

from paceline.analysis import colours
from paceline.analysis.where import KINDS
from paceline.config.faults import Fault

# How a reader sees linear RGB: Machado, Oliveira and Fernandes, 2009, severity 1.
READERS = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]


def lab(colour: str, reader: str = "all colours") -> np.ndarray:
    """CIE Lab; its distances are about what an eye tells apart: 2 is seen at once where two areas touch."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = np.array(TO_XYZ) @ np.clip(np.array(READERS[reader]) @ linear, 0, 1) / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


GROUPS = {
    "kinds": {kind: area.colour for kind, area in colours.KINDS.items()},
    "faults": {name: area.colour for name, area in colours.FAULTS.items()},
    "memory": {part: area.colour for part, area in colours.MEMORY.items()},
    "methods": {place: colours.method(place).colour for place in range(9)},
    "sources": {"simulated": colours.SIMULATED.colour, "measured": colours.MEASURED.colour},
    "passes": {
        phase: colours.of_span("compute", (phase, 0, 1))[1].colour for phase in ("forward", "backward", "update")
    },
    "exchange": {phase: colours.of_span("network", (phase, 0, 1))[1].colour for phase in ("gradients", "parameters")},
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("group", GROUPS)
def test_no_two_colours_of_a_figure_look_alike(group, reader):
    for (one, a), (other, b) in combinations(GROUPS[group].items(), 2):
        assert np.linalg.norm(lab(a, reader) - lab(b, reader)) > 10, (one, other)


def test_grey_paper_tells_computing_exchange_and_waiting_apart():
    grey = sorted(lab(colours.KINDS[kind].colour)[0] for kind in ("computing", "exchange", "waiting"))
    assert all(b - a > 20 for a, b in pairwise(grey)), grey
    assert abs(lab(colours.SIMULATED.colour)[0] - lab(colours.MEASURED.colour)[0]) > 40


def test_a_colour_has_one_meaning():
    areas = (*colours.KINDS.values(), *colours.FAULTS.values(), *colours.MEMORY.values())
    lines = (colours.SIMULATED, colours.MEASURED, colours.AGAIN, colours.LIMIT)
    meant = [each.colour for each in (*areas, *lines, *map(colours.method, range(9)))]
    meant += [colours.EDGE, colours.NEUTRAL]
    assert len(set(meant)) == len(meant)


def test_every_kind_and_fault_has_a_colour():
    assert set(colours.KINDS) == {*KINDS, "evaluation"}
    assert set(colours.FAULTS) == {get_args(kind.model_fields["name"].annotation)[0] for kind in get_args(Fault)}


def test_methods_have_their_colours_by_order_and_repeat_with_other_dashes():
    found = colours.methods(["ddp", "qsr", "ddp", *map(str, range(9))])
    assert list(found)[:2] == ["ddp", "qsr"]
    assert found["ddp"] == colours.method(0) != found["qsr"]
    assert len(set(found.values())) == len(found) == 11, "the tenth has the first one's colour and other dashes"


@pytest.mark.parametrize(
    ("lane", "name", "told", "kind"),
    [
        ("compute", "step", "computing", "computing"),
        ("compute", "forward 12", "forward", None),
        ("compute", "my phase", "computing", "computing"),
        ("compute", "evaluate", "evaluation", "evaluation"),
        ("host", "host update", "host", "host"),
        ("to device", "move", "host link", "host link"),
        ("network", "wait", "waiting", "waiting"),
        ("network", "gradients 3", "exchange of gradients", "exchange"),
        ("network", "moments", "exchange", "exchange"),
        ("network", "evaluate", "evaluation", "evaluation"),
    ],
)
def test_what_a_span_is(lane, name, told, kind):
    found, area = colours.of_span(lane, (name, 0.0, 1.0))
    assert found == told
    if kind:
        assert area == colours.KINDS[kind]
