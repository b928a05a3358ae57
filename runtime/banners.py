"""What an mpirun itself says, in blocks between dashed lines: left out where one line of ours says it.

Rule: a user gets one line. If a rank has said why it ends, all that mpirun adds about that end is left out. If no rank
has, or none could be started, `Relay.ended` or `Relay.no_start` is the line. Blocks about anything else pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import IO, TextIO

from .job_signs import Signs

RULE = re.compile(rb"(-{60,}|={60,})\s*$")
ABORT = re.compile(
    rb"MPI_ABORT was invoked|calling\s+\"abort\"|BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
    rb"|An MPI communication peer process has unexpectedly disconnected"
)
# What MPICH says after its block, and what both say in ranks whose neighbour has gone, are such lines as well.
ABORT_LINE = re.compile(
    rb"Abort\(\d+\) on node |application called MPI_Abort|pmix_ifinit: |ptl_tool: problems getting"
    rb"|YOUR APPLICATION TERMINATED WITH THE EXIT STRING|This typically refers to a problem with your app"
    rb"|^\[[^]]+\] \*\*\* (An error occurred in|reported by process|on a |on comm|Unknown err|MPI_ERR|   and MPI will)"
    rb"|plm:ssh: Warning: setpgid|UNSUPPORTED DAEMON ERROR STATE|^\[warn\] Epoll "
    rb"|^\[mpiexec@[^\]]+\] (ui_cmd_cb|control_cb|HYDT_dmxu_poll|HYD_pmci_wait|main) "
    rb"|^\[proxy:\d+@[^\]]+\] HYD"
    rb"|^NBC_Progress: an error"  # Open MPI's, of an exchange that the loss of a rank has cut off
    rb"|Please see the FAQ page for debugging|^Fatal error in \w+: .*error stack|^(internal_|MPI|copy_)\w*\(\d+\)\.*: "
)
FATAL = re.compile(rb"^\[[^]]+\] \*\*\* An error occurred in Socket closed")
SAID = re.compile(rb"paceline: (?!warning)|Traceback \(most recent call last\)")
FAILED = re.compile(rb"paceline: rank (?P<rank>\d+) failed")  # with an error that is not one of Paceline's own
LOST = re.compile(rb"paceline: (?P<what>(a worker|workers? [\d, ]+) (is|are) lost|worker \d+ failed)")
MISSING = re.compile(rb"paceline: .* has taken .*Missing: (?P<who>rank (?!.*Stopped as asked).*)")
GOES_ON = b"paceline train --resume"  # in a line that says how to go on
LONGEST = 20  # lines of a block of mpirun's; a longer one is a table that the program printed

# What keeps an mpirun from starting, and what to do about it.
NO_START = (
    (
        re.compile(rb"could not access\s+an executable:\s+Executable: (?P<what>\S+)\s+Node: (?P<host>\S+)"),
        "{what} cannot be run on host {host}; Paceline and its Python must be at the same place on every host",
    ),
    (
        re.compile(rb"^\[proxy:\d+@(?P<host>\S+)\] .*execvp error on file (?P<what>\S+)"),
        "{what} cannot be run on host {host}; Paceline and its Python must be at the same place on every host",
    ),
    (
        re.compile(rb"no available\s+interfaces were found"),
        "no network interface is up, and ranks find one another by one: ip link set lo up",
    ),
    (
        re.compile(rb"mkdir was unable to create the desired directory:\s+Directory:\s+(?P<what>\S+)"),
        "the folder {what} cannot be made; set TMPDIR to a folder that can be written",
    ),
)
# Which host is lost, or cannot be reached. MPICH's own lines tell of no host; those of ssh, which come before, do.
HOST = (
    re.compile(rb"^ssh: connect to host (?P<host>\S+) port \d+: (?P<why>.+?)\s*$"),
    re.compile(rb"^ssh: Could not resolve hostname (?P<host>[^:\s]+): (?P<why>.+?)\s*$"),
    re.compile(rb"^(?:[^@\s]+@)?(?P<host>[^@:\s]+): (?P<why>Permission denied \(.+\))"),
    re.compile(rb"^Connection to (?P<host>\S+) (?P<why>closed by remote host)"),
    re.compile(rb"^(?P<host>)(?P<why>Host key verification failed)"),
    re.compile(rb"A daemon failed to report back.*Remote host:\s+(?P<host>\S+)(?P<why>)", re.DOTALL),
    re.compile(
        rb"lost communication with a remote daemon.*Remote daemon:[^\n]*on node (?P<host>\S+)(?P<why>)", re.DOTALL
    ),
    re.compile(rb"^\[mpiexec@[^\]]+\] (?:ui_cmd_cb .*Launch proxy failed|control_cb .*closed)(?P<host>)(?P<why>)"),
)
# How a rank ended if it had no time to say so itself.
KILLED = (
    (
        re.compile(rb"process rank (?P<rank>\d+)\s.*exited on\s+signal (?P<what>\d+)", re.DOTALL),
        "rank {rank} was ended by signal {what}{why}",
    ),
    (re.compile(rb"EXIT STRING: .*\(signal (?P<what>\d+)\)"), "a rank was ended by signal {what}{why}"),
)
ENDED = (
    *KILLED,
    (
        re.compile(rb"non-zero status.*Process name: \[.*,(?P<rank>\d+)\]\s+Exit code:\s+(?P<what>\d+)", re.DOTALL),
        "rank {rank} ended with status {what} and did not say why",
    ),
)
# Open MPI's mpirun now and then, with --with-ft ulfm on several hosts. Another start may do.
DAEMON = ((re.compile(rb"UNSUPPORTED DAEMON ERROR STATE"), "mpirun lost its connection to a host"),)
WHY = {
    "7": ", perhaps because /dev/shm is full",
    "9": ", perhaps because memory ran out",
    "11": ", a crash in a compiled library",
}


class Relay:
    """Copies what an mpirun prints, as it comes, except for what one line says better."""

    def __init__(self) -> None:
        self.said = False  # whether a rank has said why it ends
        self.goes_on = False  # whether a line has said how to go on
        self.failed = False  # whether a rank has failed with an error that is not one of Paceline's own
        self.lost = ""  # which rank was lost, if a rank says so
        self.went_on = False  # whether others have gone on without a lost rank, so that mpirun tells of an earlier loss
        self.ended = ""  # how a rank ended, if mpirun says so
        self.no_start = ""  # why no rank could be started, if mpirun says so
        self.hosts = dict[str, str]()  # those that are lost or cannot be reached, and why, if ssh says that
        self.signs = Signs()

    def copy(self, stream: IO[bytes], into: TextIO) -> None:
        """Copy until the stream ends."""
        with stream:
            for line in self.kept(_lines(stream)):
                into.write(line.decode(errors="replace"))
                into.flush()

    def kept(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that are to be shown."""
        block: list[bytes] = []
        empty: list[bytes] = []  # lines whose fate what follows decides: MPICH begins what it says with one
        dropped = False
        for each in lines:
            line = each.replace(b"\0", b"")  # Open MPI's last line has one
            rule = RULE.match(line)
            if not block and not rule:
                if not line.strip():
                    empty += [] if dropped else [line]  # Open MPI ends with an empty line
                    continue
                dropped = self._heard(line)
                yield from () if dropped else (*empty, line)
                empty = []
                continue
            block.append(line)
            ends = rule and len(block) > 1
            if ends and self._known(b"".join(block)):
                yield from () if block[0].startswith(b"=") else empty
                block, empty, dropped = [], [], True
            elif ends or len(block) > LONGEST:
                yield from (*empty, *block)
                block, empty, dropped = [], [], False
        yield from (*empty, *block)

    def _heard(self, line: bytes) -> bool:
        """Whether the line need not be shown; what it says is noted."""
        if self.signs.note(line):
            return True
        self.said |= bool(SAID.match(line))
        self.goes_on |= GOES_ON in line
        if failed := FAILED.match(line):
            self.failed, self.lost = True, f"rank {int(failed['rank'])} failed"
        elif lost := LOST.match(line):
            goes_on = b"the others go on" in line
            self.lost, self.went_on = "" if goes_on else lost["what"].decode(), self.went_on or goes_on
        elif missing := MISSING.match(line):
            self.lost = f"{' and '.join(re.findall(r'worker [0-9]+', missing['who'].decode()))} gave no answer"
        if FATAL.search(line):
            self.signs.fatal = True
            self.lost = self.lost or "a rank was lost, and its connections have closed"
        self.ended = self.ended or _line(KILLED[1:], line) or _line(DAEMON, line)
        self.no_start = self.no_start or _line(NO_START[1:2], line)
        return self._no_host(line) or bool(ABORT_LINE.search(line))

    def _known(self, block: bytes) -> bool:
        """Whether the block need not be shown; what it says is then kept as a line."""
        self.no_start = self.no_start or _line(NO_START, block)
        self.ended = self.ended or _line(ENDED, block)
        return any((self._no_host(block), ABORT.search(block), _line(NO_START, block), _line(ENDED, block)))

    def _no_host(self, text: bytes) -> bool:
        """Whether a line or a block tells of a host that is lost or cannot be reached, which is then noted."""
        found = next(filter(None, (pattern.search(text) for pattern in HOST)), None)
        if found:
            host, why = found["host"].decode(errors="replace"), found["why"].decode(errors="replace")
            self.hosts[host] = self.hosts.get(host) or why
        return found is not None

    @property
    def host(self) -> str:
        """What happened to hosts, in words; empty where nothing did."""
        names = [name for name in self.hosts if name] or ["a host"] * bool(self.hosts)
        why = "; ".join(filter(None, self.hosts.values()))
        named = ", ".join(name if name == "a host" else f"host {name}" for name in names)
        verb = "is lost or cannot" if len(names) == 1 else "are lost or cannot"
        return f"{named} {verb} be reached{f' ({why})' if why else ''}" if names else ""


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a stream, as soon as they are there. A progress bar's end with a carriage return."""
    rest = b""
    while data := os.read(stream.fileno(), 65_536):
        *whole, rest = re.split(rb"(?<=[\r\n])", rest + data)
        yield from filter(None, whole)
    if rest:
        yield rest


def _line(table: Iterable[tuple[re.Pattern[bytes], str]], block: bytes) -> str:
    for pattern, text in table:
        if found := pattern.search(block):
            groups = {name: value.decode(errors="replace") for name, value in found.groupdict().items()}
            return text.format(**groups, why=WHY.get(groups.get("what", ""), ""))
    return ""
