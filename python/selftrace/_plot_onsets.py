"""The forest plot: when each concept appears, by each measure, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from . import _measures
from ._curves import as_list, one_readout
from ._style import INK, NULL, SMALL, bare, caption, picture, time_axis
from ._tables import SelftraceError
from ._words import date_in_words, meaning, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ._run import Run

#: A measure of which every row has one of these could date nothing: it is named below the picture instead of
#: filling it.
_UNTRIED = (
    "no_foils",
    "too_few_foils",
    "not_run",
    "no_reference",
    "too_few_checkpoints",
    "no_unembedding",
    "no_axis",
)


def plot_onsets(
    run: Run,
    measures: str | Iterable[str] | None = None,
    *,
    concepts: str | Iterable[str] | None = None,
    readouts: Literal["one", "all"] = "one",
) -> Figure:
    """One line per concept and measure, earliest concepts above; below, one grey line per measure with what
    the null bank has.
    """
    rows = run._onset(None, measures, True, True, False).to_pylist()
    if readouts == "one":
        rows = one_readout(rows)
    asked = [row for row in rows if not row["null_bank"]]
    if concepts is not None:
        run._onset(concepts, measures, True, True, False)
        asked = [row for row in rows if row["concept"] in set(as_list(concepts))]
    if not asked:
        raise SelftraceError(f"{run.folder / 'onset.parquet'}: no primary row of a concept to draw")
    untried = _untried(asked) if measures is None else {}
    hidden = {measure for own in untried.values() for measure in own}
    asked = [row for row in asked if row["measure"] not in hidden]
    bank = [row for row in rows if row["null_bank"] and row["measure"] not in hidden and row not in asked]
    lines = _sorted(asked)
    null_lines = sorted(
        {(row["measure"], row["readout"]) for row in bank},
        key=lambda key: (_measures.order(key[0]), key[1] or ""),
    )
    blocks = len({row["concept"] for row in lines})
    notes = {
        id(row): date_in_words(row) + (f"   at {row['between']}" if row["between"] else "") for row in lines
    }
    summaries = {
        key: _summary([row for row in bank if (row["measure"], row["readout"]) == key]) for key in null_lines
    }
    labels = {id(row): _label(row, readouts == "all") for row in lines}
    null_labels = {
        key: _label({"measure": key[0], "layer": None, "readout": key[1]}, readouts == "all")
        for key in null_lines
    }
    sentences = [
        "Dot: midpoint of the rise; bar: 95% interval over groups of prompts; arrow: beyond the "
        "checkpoints, or an open end. "
        "Marks on the axis: checkpoints. Shades: stages."
        + (" Dotted: a lesson begins." if run.lessons else ""),
        *(f"No date by {', '.join(own)}: {words}." for words, own in untried.items()),
        "From onset.parquet, primary layers"
        + ("" if readouts == "all" else "; more readouts with readouts='all'")
        + ".",
    ]
    # Laid out by hand: text beside axes is as wide as its letters, which a layout engine knows too late.
    middle = _inches(labels.values(), null_labels.values()) + 0.1
    left = middle + _inches((row["concept"] for row in lines), ["null bank"], size=1.2) + 0.15
    right = _inches(notes.values(), summaries.values()) + 0.2
    rows_high = 0.2 * (len(lines) + 0.6 * blocks + (len(null_lines) + 0.7 if null_lines else 0.0))
    width, below = left + 5.2 + right, 0.55
    figure = picture(width, 1.0, "none")
    below += 0.165 * caption(figure, "\n".join(sentences))
    height = 0.6 + rows_high + below
    figure.set_size_inches(width, height)
    axes = figure.add_axes((left / width, below / height, 5.2 / width, rows_high / height))
    bare(axes)
    time_axis(axes, run.timeline)
    ticks: list[tuple[float, str]] = []
    y, before = 0.0, None
    for row in lines:
        if row["concept"] != before:
            if before is not None:
                y -= 0.6
                axes.axhline(y + 0.8, color="#DDDDDD", lw=0.6, zorder=0.5)
            before = row["concept"]
            _heading(axes, y, before, middle, INK)
        colour = _measures.colour(row["measure"])
        if row["concept"] in run.lessons and run.timeline.steps is not None:
            axes.plot(
                [run.lessons[row["concept"]]] * 2, [y - 0.5, y + 0.5], color=INK, ls=":", lw=1.2, zorder=2
            )
        dated = row["status"] == "ok" and _interval(axes, y, row, colour)
        ticks.append((y, labels[id(row)]))
        _note(axes, y, notes[id(row)], INK if dated else "#777777")
        y -= 1.0
    if null_lines:
        y -= 0.7
        axes.axhline(y + 0.85, color="#888888", lw=0.8, zorder=0.5)
        _heading(axes, y, "null bank", middle, "#777777")
        for key in null_lines:
            for row in bank:
                if (row["measure"], row["readout"]) == key and row["status"] == "ok":
                    _interval(axes, y, row, NULL)
            ticks.append((y, null_labels[key]))
            _note(axes, y, summaries[key], "#777777")
            y -= 1.0
    axes.set_ylim(y + 0.4, 0.8)
    axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=SMALL)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(
        f"{run.name}: when each concept appears", fontsize=SMALL + 3, loc="left", pad=16, color=INK
    )
    return figure


def _inches(*texts: Iterable[str], size: float = 1.0) -> float:
    """Width of the longest text, at an average width of letters."""
    return size * 0.55 * SMALL / 72 * max((len(text) for some in texts for text in some), default=0)


def _summary(members: list[dict[str, Any]]) -> str:
    statuses = {row["status"] for row in members}
    if statuses <= set(_UNTRIED):
        return " or ".join(sorted(map(meaning, statuses)))
    found = [
        row["concept"]
        for row in members
        if row["status"] == "ok" and any(end is not None for end in span(row))
    ]
    return f"{len(found)} of {len(members)} dated" + (f": {', '.join(found)}" if found else "")


def _untried(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Measures that dated nothing, by the reason."""
    statuses: dict[str, set[str]] = {}
    for row in rows:
        statuses.setdefault(row["measure"], set()).add(row["status"])
    out: dict[str, list[str]] = {}
    for measure in sorted(statuses, key=_measures.order):
        if statuses[measure] <= set(_UNTRIED):
            out.setdefault(" or ".join(sorted(map(meaning, statuses[measure]))), []).append(measure)
    # With nothing left to draw, statuses are what there is to see.
    return {} if sum(map(len, out.values())) == len(statuses) else out


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Concepts by their earliest date or bound, undated ones last; measures in their order."""

    def place(row: dict[str, Any]) -> float:
        ends = [end for end in span(row) if end is not None] if row["status"] == "ok" else []
        return ends[0] if ends else math.inf

    earliest: dict[str, float] = {}
    for row in rows:
        earliest[row["concept"]] = min(earliest.get(row["concept"], math.inf), place(row))
    return sorted(
        rows,
        key=lambda row: (
            earliest[row["concept"]],
            row["concept"],
            _measures.order(row["measure"]),
            row["readout"] or "",
        ),
    )


def _label(row: dict[str, Any], with_readout: bool) -> str:
    layer = "" if row["layer"] is None else f", layer {row['layer']}"
    readout = f", {row['readout']}" if with_readout and row["readout"] else ""
    return str(row["measure"]).replace("_", " ") + layer + readout


def _heading(axes: Axes, y: float, text: str, inches: float, colour: str) -> None:
    axes.annotate(
        text,
        (0, y),
        (-72 * inches, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=SMALL + 1,
        fontweight="bold",
        color=colour,
        annotation_clip=False,
    )


def _note(axes: Axes, y: float, text: str, colour: str) -> None:
    axes.text(
        1.01,
        y,
        text,
        transform=axes.get_yaxis_transform(),
        ha="left",
        va="center",
        fontsize=SMALL,
        color=colour,
    )


def _interval(axes: Axes, y: float, row: dict[str, Any], colour: str) -> bool:
    """Draws a date with its interval, open ends as arrows. Returns whether there was anything."""
    date, lower, upper = span(row)
    if date is None and lower is None and upper is None:
        return False
    left, right = axes.get_xlim()
    start = left if lower is None else max(lower, left)
    end = right if upper is None else min(upper, right)
    # A bound has an arrow from it outwards, and a date with an open end one from the date.
    axes.plot([start, end], [y, y], color=colour, lw=3.2, alpha=0.45, solid_capstyle="butt", zorder=3)
    for at, is_open, marker in (
        (left, lower is None or lower < left, "<"),
        (right, upper is None or upper > right, ">"),
    ):
        if is_open:
            axes.plot([at], [y], marker, color=colour, ms=6, mec="none", clip_on=False, zorder=4)
    if date is not None:
        axes.plot([date], [y], "o", color=colour, ms=6, mec="white", mew=0.8, zorder=5)
    else:
        for bound in (lower, upper):
            if bound is not None:
                axes.plot([min(max(bound, left), right)], [y], "|", color=colour, ms=9, mew=1.6, zorder=5)
    return True
