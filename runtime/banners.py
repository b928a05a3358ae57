"""What an mpirun itself says, in blocks between dashed lines: left out where one line of ours says it.

Rule: a user gets one line. If a rank has said why it ends, all that mpirun adds about that end is left out. If no rank
has, or none could be started, `Relay.ended` or `Relay.no_start` is the line. Blocks about anything else pass.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO

RULE = re.compile(rb"-{60,}\s*$")
ABORT = re.compile(rb"MPI_ABORT was invoked|calling\s+\"abort\"")
ABORT_LINE = re.compile(rb"Abort\(\d+\) on node |application called MPI_Abort|pmix_ifinit: |ptl_tool: problems getting")
SAID = re.compile(rb"paceline: (?!warning)|Traceback \(most recent call last\)")
LONGEST = 15  # lines of a block of mpirun's; a longer one is a table that the program printed

# What keeps an mpirun from starting, and what to do about it.
NO_START = (
    (
        re.compile(rb"no available\s+interfaces were found"),
        "no network interface is up, and ranks find one another by one: ip link set lo up",
    ),
    (
        re.compile(rb"mkdir was unable to create the desired directory:\s+Directory:\s+(?P<what>\S+)"),
        "the folder {what} cannot be made; set TMPDIR to a folder that can be written",
    ),
)
# How a rank ended if it had no time to say so itself.
ENDED = (
    (
        re.compile(rb"process rank (?P<rank>\d+)\s.*exited on\s+signal (?P<what>\d+)", re.DOTALL),
        "rank {rank} was ended by signal {what}{why}",
    ),
    (
        re.compile(rb"non-zero status.*Process name: \[.*,(?P<rank>\d+)\]\s+Exit code:\s+(?P<what>\d+)", re.DOTALL),
        "rank {rank} ended with status {what} and did not say why",
    ),
)
WHY = {
    "7": ", perhaps because /dev/shm is full",
    "9": ", perhaps because memory ran out",
    "11": ", a crash in a compiled library",
}


class Relay:
    """Copies an mpirun's standard error to this process's, as it comes, except for what one line says better."""

    def __init__(self) -> None:
        self.said = False  # whether a rank has said why it ends
        self.ended = ""  # how a rank ended, if mpirun says so
        self.no_start = ""  # why no rank could be started, if mpirun says so

    def copy(self, stream: IO[bytes]) -> None:
        """Copy until the stream ends."""
        with stream:
            for line in self.kept(stream):
                sys.stderr.write(line.decode(errors="replace"))
                sys.stderr.flush()

    def kept(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that are to be shown."""
        block: list[bytes] = []
        dropped = False
        for each in lines:
            line = each.replace(b"\0", b"")  # Open MPI's last line has one
            rule = RULE.match(line)
            if not block and not rule:
                self.said |= bool(SAID.match(line))
                empty = dropped and not line.strip()  # Open MPI ends with an empty line
                dropped = bool(ABORT_LINE.search(line))
                if not (empty or dropped):
                    yield line
                continue
            block.append(line)
            ends = rule and len(block) > 1
            if ends and self._known(b"".join(block)):
                block, dropped = [], True
            elif ends or len(block) > LONGEST:
                yield from block
                block = []
        yield from block

    def _known(self, block: bytes) -> bool:
        """Whether the block need not be shown; what it says is then kept as a line."""
        self.no_start = self.no_start or _line(NO_START, block)
        self.ended = self.ended or _line(ENDED, block)
        return any((ABORT.search(block), _line(NO_START, block), _line(ENDED, block)))


def _line(table: Iterable[tuple[re.Pattern[bytes], str]], block: bytes) -> str:
    for pattern, text in table:
        if found := pattern.search(block):
            groups = {name: value.decode(errors="replace") for name, value in found.groupdict().items()}
            return text.format(**groups, why=WHY.get(groups.get("what", ""), ""))
    return ""
