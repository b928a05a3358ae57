"""The errors that Paceline raises on purpose. Each takes one string, since SimPy rebuilds them from `args`."""

from __future__ import annotations


class PacelineError(Exception):
    """Base of the errors below: caught by the command line, shown in one line, exit status 2."""


class ScenarioError(PacelineError):
    """The scenario file (or what it names) is wrong: says the key, what was found, what to write instead."""


class ProtocolError(PacelineError):
    """The workers' programs do not fit together: names the workers and what each waits for."""


class BorrowError(ProtocolError):
    """A program wrote to a value while an effect had borrowed it (found by the debug mode)."""


class WorkerLost(PacelineError):
    """A peer is gone."""
