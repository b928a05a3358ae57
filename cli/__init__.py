"""The command line: the options and the help text of each command. What a command does is in a module elsewhere."""

from . import machine, runs, studying, words
from .app import app

__all__ = ["app", "machine", "runs", "studying", "words"]
