"""Numbers as people are told them: durations, bytes and counts, in a unit in which they are short.

Rule: files (CSV, JSON) hold plain numbers; these texts are for terminals, pages and figures. Units are those that a
scenario reads (units.py), except days. Prefixes are powers of ten.
"""

from __future__ import annotations

import math

UNKNOWN = "-"  # what is said of a number that is not known
EXACT = 100_000  # a count below it is told with all its digits
_BEGINS = (  # from so many seconds on, which unit, and its seconds
    (2 * 86400.0, "days", 86400.0),
    (2 * 3600.0, "h", 3600.0),
    (120.0, "min", 60.0),
    (1.0, "s", 1.0),
    (1e-3, "ms", 1e-3),
    (1e-6, "us", 1e-6),
    (0.0, "ns", 1e-9),
)
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def duration(seconds: float | None, digits: int = 3) -> str:
    """Like '83.2 us', '9.22 s', '12.4 h'. digits: in all, at least; a whole part is never cut."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if not seconds:
        return "0 s"
    size = abs(seconds)
    # What rounds up to a unit is told in that unit: 0.99996 s is 1 s, and not 1000 ms.
    size = float(f"{size:.{digits}g}")
    unit, factor = next((unit, factor) for begin, unit, factor in _BEGINS if size >= begin)
    return f"{'-' if seconds < 0 else ''}{_rounded(abs(seconds) / factor, digits)} {unit}"


def nbytes(size: float | None, digits: int = 3) -> str:
    """Bytes, like '512 B', '24.4 MB', '11.2 TB'."""
    return _scaled(size, digits, "B")


def count(number: float | None, digits: int = 3) -> str:
    """How many, like '43,136' or '3.4 M'. A number from EXACT on is rounded."""
    if number is not None and math.isfinite(number) and number == int(number) and abs(number) < EXACT:
        return f"{int(number):,}"
    return _scaled(number, digits, "")


def rate(number: float | None, what: str = "samples/s", digits: int = 3) -> str:
    """So many a second, like '7.53 samples/s', '67,600 samples/s', '1.2 M samples/s'."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    if abs(number) < EXACT:
        return f"{float(_rounded(number, digits)):,.10g} {what}"
    return f"{_scaled(number, digits, what)}"


def _scaled(number: float | None, digits: int, unit: str) -> str:
    if number is None or not math.isfinite(number):
        return UNKNOWN
    size, place = float(f"{abs(number):.{digits}g}"), 0
    while size >= 1000 and place < len(_PREFIXES) - 1:
        size, place = size / 1000, place + 1
    sign = "-" if number < 0 else ""
    text = f"{sign}{_rounded(abs(number) / 1000.0**place, digits)}"
    prefix = _PREFIXES[place]
    # "24.4 MB", but "3.4 M samples/s": a prefix belongs to a unit that is a symbol.
    whole = f"{prefix}{unit}" if unit in ("", "B") else f"{prefix} {unit}".strip()
    return f"{text} {whole}".rstrip()


def _rounded(number: float, digits: int) -> str:
    """With so many digits, and all of the whole part."""
    whole = len(str(int(number))) if number >= 1 else 1
    return f"{number:.{max(digits, whole)}g}" if number < 1e15 else f"{number:.{digits}g}"
