"""The conformance suite: small programs and what every interpreter must make of them.

Rules: these are plain modules without pytest, so that an interpreter with one process per worker can run the same list.
Programs of one case share no objects. All expected numbers are written down or folded by hand, never taken from an
interpreter. Run each of CASES so:

    record = Record(case.stop_after)
    results = interpreter([case.make(i) for i in range(case.workers)], record.hooks(), debug=case.debug)
    case.verify(results, record)

or, where `case.raises` is set, expect that error with every string of `case.says` in its text. Only an
interpreter that sees all programs at once finds the errors of cases with `overview`; the others may skip these.
"""

from __future__ import annotations

from kit.conformance import answers, errors, wire, worlds  # noqa: F401 - each adds its cases to CASES
from kit.programs import CASES, Case, Record

__all__ = ["CASES", "Case", "Record"]
