"""What all pictures have in common: a figure that notebooks show, stages as shades, and one time axis."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from ._tables import SelftraceError
from ._timeline import Timeline

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
except ImportError:
    raise SelftraceError("pictures need matplotlib: pip install matplotlib") from None

NULL = "#B4B4B4"
INK = "#333333"
SHADE = "#F1F1F1"
#: For concepts: Okabe & Ito (2008), without the yellow, which is too pale for lines.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D1F")
SMALL = 8


class Picture(Figure):
    """A figure that a notebook shows once, whether or not pyplot is in use, and whose words are words, dollar
    signs or not.
    """

    def draw(self, renderer: Any) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=90)
        return out.getvalue()


def picture(width: float, height: float, layout: Literal["constrained", "none"] = "constrained") -> Picture:
    """An empty figure, in inches, on white."""
    # matplotlib's own types forget "none".
    return Picture(figsize=(width, height), layout=layout, facecolor="white")  # type: ignore[arg-type]


def bare(axes: Axes) -> None:
    """No frame that carries no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(colors=INK, labelsize=SMALL, length=3)


def caption(figure: Figure, text: str) -> int:
    """How to read it, below the picture, wrapped to its width. Returns the number of lines."""
    wide = int(figure.get_figwidth() * 72 / (0.56 * SMALL))
    lines = [line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, wide)]
    figure.supxlabel("\n".join(lines), fontsize=SMALL, color="#555555", x=0.01, ha="left")
    return len(lines)


def time_axis(axes: Axes, line: Timeline, label: bool = True, names: bool = True) -> None:
    """The run's axis along x: every second stage shaded, stages named above, a tick mark per checkpoint."""
    shown = line.shown
    first, last = shown[0], shown[-1]
    margin = 0.02 * (last - first) or 1.0
    if line.steps is not None and line.axis.endswith("_log") and (last + 1) > 30 * (first + 1):
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(max(0.0, first * 0.9) if first else -0.05, last * 1.1)
        # Few decades have room for more than their powers of ten.
        factors = (1, 2, 5) if last < 1000 * (first + 1) else (1,)
        powers = range(int(math.log10(last)) + 1)
        ticks = [0.0, *(factor * 10.0**power for power in powers for factor in factors)]
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if first <= tick <= last]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if float(value).is_integer() else f"{value:g}")
    )
    left, right = axes.get_xlim()
    spans = line.stage_spans()
    for number, (stage, begin, end) in enumerate(spans):
        # What a stage does happens between the last checkpoint before it and its own last one.
        lower = left if number == 0 else shown[begin - 1]
        upper = right if number + 1 == len(spans) else shown[end]
        if number % 2:
            axes.axvspan(lower, upper, color=SHADE, lw=0, zorder=0)
        if names and stage:
            axes.annotate(
                stage,
                (lower, 1),
                (3, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=SMALL,
                color="#666666",
                annotation_clip=False,
            )
    axes.plot(
        shown,
        [0.0] * len(shown),
        "|",
        color="#888888",
        ms=5,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        zorder=1,
    )
    if label:
        axes.set_xlabel(line.unit, fontsize=SMALL + 1, color=INK)


def checkpoint_ticks(axes: Axes, line: Timeline, which: str = "x") -> None:
    """Checkpoints at 0, 1, 2, ... along an axis: at most a dozen named, every stage divided from the next."""
    n = len(line.ids)
    every = max(1, -(-n // 12))
    at = list(range(0, n, every))
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(at))
    axis.set_minor_locator(NullLocator())
    labels: Sequence[str] = [line.ids[position] for position in at]
    axis.set_ticklabels(
        labels,
        fontsize=SMALL,
        rotation=45 if which == "x" else 0,
        rotation_mode="anchor",
        ha="right",
    )
    for _, begin, _ in line.stage_spans()[1:]:
        (axes.axvline if which == "x" else axes.axhline)(begin - 0.5, color="white", lw=2)
