"""The conformance suite over the interpreters that live in one process; runtime runs the same list under mpirun."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import CASES, Case, Record
from lockstep import lockstep


def run_lockstep(programs: Any, hooks: Any, debug: bool) -> list[Any]:
    return lockstep(programs, hooks, debug)


@pytest.mark.parametrize("interpreter", [run_lockstep])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_conformance(case: Case, interpreter: Any) -> None:
    record = Record(case.stop_after)
    programs = [case.make(i) for i in range(case.workers)]
    if case.raises is None:
        case.verify(interpreter(programs, record.hooks(), case.debug), record)
        return
    with pytest.raises(case.raises) as caught:
        interpreter(programs, record.hooks(), case.debug)
    assert type(caught.value) is case.raises
    for words in case.says:
        assert words in str(caught.value)
