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


class WorkloadError(PacelineError):
    """The user's model, loss or data failed in a worker's step: says worker, step and what it was doing there."""


class NotFinite(PacelineError):
    """Training has gone bad: a loss, a gradient or a parameter is infinite or not a number. Says where."""


class ReplicasDiffer(PacelineError):
    """Workers that must hold the same parameters do not."""
