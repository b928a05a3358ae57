"""How figures are drawn and saved: formats, size and fonts, in one object for all figures.

Rule: a figure is drawn for its size, so a legend has as many columns as fit and texts keep their size. Files can be
printed: a PDF holds its fonts, an SVG its text as text, and equal figures give equal files.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from ..program.errors import ScenarioError, brief, nearest
from .colours import METHODS, method

if TYPE_CHECKING:
    from cycler import Cycler
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
WIDTHS = {"column": 3.3, "page": 6.9}  # inches, of most journals and conferences
FAMILIES = ("serif", "sans-serif", "monospace")
MOST = 100.0  # inches of a side
SCREEN_DPI, PRINT_DPI = 130, 300  # dots per inch of a PNG
NARROW = 5.0  # inches: panels of a narrower figure are below one another
FEW = 200  # of the largest and the smallest number: a logarithmic axis with fewer times has 2 and 5 as well
LINEAR = 3  # of the largest and the smallest number: up to so many times apart, an axis is linear
FITS = 0.92  # of a figure's width: what a legend may take, since texts differ a little in width from format to format
P = ParamSpec("P")


@dataclass(frozen=True)
class Paper:
    """What figures are drawn for. The default is a screen."""

    formats: tuple[str, ...] = ("png",)  # of FORMATS
    width: float | None = None  # inches; None: each figure's own
    height: float | None = None  # inches; None: as the figure's own proportions have it
    font: str | None = None  # a family that is installed, or one of FAMILIES; None: Matplotlib's
    font_size: float = 9.0  # points of axis labels; tick labels and legends are a little smaller

    @classmethod
    def read(cls, formats: str, size: str | None, font: str | None, font_size: float) -> Paper:
        """From a command's options. ScenarioError where one is wrong.

        formats: like "png,pdf". size: like "3.3x2.5" in inches, a width like "3.3", or one of WIDTHS.
        """
        names = tuple(dict.fromkeys(name.strip().lower() for name in formats.split(",")))
        for name in names:
            if name not in FORMATS:
                raise ScenarioError(f"--format: {brief(name)} is not one of {', '.join(FORMATS)}; write like png,pdf")
        width, height = (None, None) if size is None else _read_size(size)
        if not 1 <= font_size <= 100:
            raise ScenarioError(f"--font-size: {font_size:g} is not between 1 and 100 points; 9 is the default")
        if font is not None:
            _check_font(font)
        return cls(names, width, height, font, font_size)

    @property
    def settings(self) -> Any:
        """Matplotlib's settings for drawing and saving, by their names."""
        return {
            "text.parse_math": False,  # the name of a run or a device is not a formula, whatever signs it has
            "font.size": self.font_size,
            "axes.titlesize": "medium",
            "axes.labelsize": "medium",
            "xtick.labelsize": "small",
            "ytick.labelsize": "small",
            "legend.fontsize": "small",
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "hatch.linewidth": 0.5,
            "lines.linewidth": 1.3,
            "pdf.fonttype": 42,  # whole fonts, which printers and journals ask for
            "svg.fonttype": "none",  # text as text
            "svg.hashsalt": "paceline",
            **({} if self.font is None else {"font.family": [self.font]}),
        }

    def size(self, width: float, height: float) -> tuple[float, float]:
        """The inches of a figure whose own size is given."""
        wide = self.width or width
        return wide, self.height or height * wide / width

    def beside(self, width: float) -> bool:
        """Whether a figure of this own width has its panels next to one another; else below one another."""
        return (self.width or width) >= NARROW

    def wrapped(self, text: str, width: float, margin: float = 0.0) -> str:
        """A title in as many lines as a figure of this own width needs. margin: inches next to its axes."""
        return textwrap.fill(text, max(10, int(((self.width or width) - margin) * 72 / (0.55 * self.font_size))))

    def save(self, figures: Mapping[str, Figure], folder: Path) -> list[Path]:
        """Save figures by their names in each of the formats, and close them. Returns the files.

        ScenarioError where that fails.
        """
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        known = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
        paths = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in figures.items():
                for kind in self.formats:
                    paths.append(folder / f"{name}.{kind}")
                    with mpl.rc_context(self.settings):
                        figure.savefig(paths[-1], dpi=PRINT_DPI if self.width else SCREEN_DPI, metadata=known[kind])
                plt.close(figure)
        except OSError as error:
            raise ScenarioError(f"{folder}: figures cannot be written: {error.strerror}; name another folder") from None
        return paths


SCREEN = Paper()


def cycle() -> Cycler[str, str]:
    """The methods' colours for `plt.rcParams["axes.prop_cycle"]`, so that figures of one's own have them too."""
    from cycler import cycler

    return cycler(color=[method(place).colour for place in range(METHODS)])


def drawn(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws a figure, within the settings of its keyword argument `paper`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib as mpl

        paper = kwargs.get("paper", SCREEN)
        assert isinstance(paper, Paper)
        with mpl.rc_context(paper.settings):
            figure = function(*args, **kwargs)
            for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
                _finish(axis, paper)
            return figure

    return run


def _finish(axis: Axis, paper: Paper) -> None:
    """Settle what would otherwise be read from the settings as the figure is drawn, which may be outside of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_tick_params(which="both", labelsize=_points("small", paper))
    axis.get_offset_text().set_fontsize(_points("small", paper))
    if axis.get_scale() == "log":  # plain numbers; Matplotlib writes them as formulas
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < FEW * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value:.0e}"))
        axis.set_minor_formatter(NullFormatter())


def far_apart(numbers: Sequence[float]) -> bool:
    """Whether an axis of these numbers is logarithmic: the largest is more than LINEAR times the smallest."""
    return max(numbers) > LINEAR * min(numbers) > 0


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend above a figure, with as many columns as fit next to one another."""
    if not handles:
        return
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for columns in range(len(handles), 0, -1):
        made = figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2
        )
        if columns == 1 or made.get_window_extent(renderer).width <= FITS * figure.bbox.width:
            return
        made.remove()


def _points(size: str, paper: Paper) -> float:
    from matplotlib.font_manager import font_scalings

    return float(font_scalings[size] * paper.font_size)


def _read_size(text: str) -> tuple[float, float | None]:
    if text in WIDTHS:
        return WIDTHS[text], None
    found = re.fullmatch(r"\s*([0-9.]{1,8})\s*(?:[x*]\s*([0-9.]{1,8}))?\s*(?:in)?\s*", text)
    try:
        sides = [float(side) for side in found.groups() if side is not None] if found else []
    except ValueError:
        sides = []
    if not sides or not all(1 <= side <= MOST for side in sides):
        raise ScenarioError(
            f"--size: {brief(text)} is not a width and a height in inches, between 1 and {MOST:g}; "
            f"write like 3.3x2.5, 3.3, {' or '.join(WIDTHS)}"
        )
    return sides[0], sides[1] if len(sides) > 1 else None


def _check_font(name: str) -> None:
    """ScenarioError where a family is not installed."""
    from matplotlib import font_manager

    known = {each.name for each in font_manager.fontManager.ttflist}
    if name not in known and name not in FAMILIES:
        hint = nearest(name, sorted(known)) or f"; write {', '.join(FAMILIES)} or a family that is installed"
        raise ScenarioError(f"--font: {brief(name)} is not a font family of this machine{hint}")
