"""Pages of Markdown, a part of which a command writes: the lines between a mark of its own and END."""

from __future__ import annotations

import os
from pathlib import Path

from .program.errors import ScenarioError
from .records.directory import write_atomically

END = "<!-- end -->"


def begin_of(command: str) -> str:
    """The mark before what a command writes."""
    return f"<!-- written by {command}: begin -->"


def check_page(path: Path, begin: str) -> None:
    """ScenarioError where the page cannot be filled in: it lacks the marks, or it is not a file."""
    _text(path, begin)


def fill_page(path: Path, begin: str, content: str) -> None:
    """Replace the text between the two marks. A page that does not exist is created. ScenarioError as check_page."""
    before, _, rest = _text(path, begin).partition(begin)
    write_text(path, f"{before}{begin}\n{content}\n{END}{rest.partition(END)[2]}")


def write_text(path: Path, text: str) -> None:
    """Write a file that the user has named, in a folder that is made if need be. ScenarioError where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be written: {error.strerror}; name another file") from None


def check_folder(folder: Path, named: str) -> None:
    """ScenarioError where a folder can neither be made nor written to, before long work. named: as users named it."""
    near = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not near.is_dir() or not os.access(near, os.W_OK):
        raise ScenarioError(f"{named}: {near} cannot be written to; name another place")


def _text(path: Path, begin: str) -> str:
    if not path.exists():
        return f"{begin}\n{END}\n"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}; name another file") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: is not a page of Markdown; name another file") from None
    if begin not in text or END not in text.partition(begin)[2]:
        raise ScenarioError(f"{path}: has no lines {begin!r} and {END!r} to write the tables between; add them")
    return text
