"""What an mpirun adds when a rank aborts the job: left out, since the rank has said in its own words why.

Open MPI writes blocks between dashed lines, MPICH a line. Blocks about anything else (a rank that was killed, a host
that is missing) are passed on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO

RULE = re.compile(rb"-{60,}\s*$")
ABORT = re.compile(rb"MPI_ABORT was invoked|calling\s+\"abort\"")
ABORT_LINE = re.compile(rb"Abort\(\d+\) on node |application called MPI_Abort")
LONGEST = 15  # lines of a block; what is longer is a table of the program's own


def without_banners(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines, but for those about an abort."""
    block: list[bytes] = []
    dropped = False
    for line in lines:
        rule = RULE.match(line)
        if not block and not rule:
            empty = dropped and not line.strip()  # Open MPI closes with one
            dropped = bool(ABORT_LINE.search(line))
            if not (empty or dropped):
                yield line
            continue
        block.append(line)
        ends = rule and len(block) > 1
        if ends and ABORT.search(b"".join(block)):
            block, dropped = [], True
        elif ends or len(block) > LONGEST:
            yield from block
            block = []
    yield from block


def relay(stream: IO[bytes]) -> None:
    """Copy an mpirun's standard error to this process's, as it comes."""
    for line in without_banners(stream):
        sys.stderr.write(line.decode(errors="replace"))
        sys.stderr.flush()
