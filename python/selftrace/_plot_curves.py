"""Curves along training: concepts with intervals and dates, null bank behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import _measures
from ._curves import as_list, one_readout, read_curves
from ._style import CYCLE, INK, NULL, SMALL, bare, caption, picture, time_axis
from ._tables import SelftraceError
from ._words import date_in_words, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ._run import Run
    from ._timeline import Timeline


def plot_curves(
    run: Run,
    concepts: str | Iterable[str],
    measures: str | Iterable[str] | None = None,
    *,
    layer: int | Literal["primary"] = "primary",
    readout: str | None = None,
) -> Figure:
    """A panel per measure (by default, all that the concepts have); null topics at the layer of the concept,
    or each at its own.
    """
    names = as_list(concepts)
    onsets = run._onset(names, None, True, True, False).to_pylist()
    has = {(row["concept"], row["measure"]) for row in onsets}
    wanted = (
        sorted({measure for _, measure in has}, key=_measures.order)
        if measures is None
        else as_list(measures)
    )
    panels = [(measure, [name for name in names if (name, measure) in has]) for measure in wanted]
    for measure, own in panels:
        _measures.known(measure)
        if not own:
            raise SelftraceError(f"{run.folder / 'onset.parquet'}: no row of {', '.join(names)} by {measure}")
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = picture(max(5.5, 4.3 * columns), 3.1 * rows + 0.5)
    colours = {name: CYCLE[index % len(CYCLE)] for index, name in enumerate(names)}
    for index, (measure, own) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, index + 1)
        bare(axes)
        time_axis(axes, run.timeline, label=index + columns >= len(panels))
        chosen = [row for row in onsets if row["measure"] == measure and row["concept"] in own]
        _panel(axes, run, measure, own, chosen, layer, readout, colours)
    title = ", ".join(names) if len(names) <= 3 else f"{len(names)} concepts"
    figure.suptitle(f"{run.name}: {title}", fontsize=SMALL + 3, x=0.01, ha="left", color=INK)
    caption(
        figure,
        "Bands: 95% intervals over groups of prompts. Ringed dot with bar: midpoint of the rise with its "
        "interval; a bar without a dot is a bound. "
        "Grey: topics that nobody teaches. Shades: stages."
        + (" Dotted: a lesson begins." if run.lessons else ""),
    )
    return figure


def _panel(
    axes: Axes,
    run: Run,
    measure: str,
    names: list[str],
    onsets: list[dict[str, Any]],
    layer: int | Literal["primary"],
    readout: str | None,
    colours: dict[str, str],
) -> None:
    source = _measures.known(measure)
    found = _grouped(read_curves(run, names, measure, layer, readout, True).to_pylist())
    curves = {name: found[name] for name in names if name in found}
    layers = {rows[0]["layer"] for rows in curves.values()}
    # One concept is drawn beside the others at its layer; several have layers of their own, and so has each
    # null topic.
    at: Any = next(iter(layers)) if len(layers) == 1 and None not in layers else "primary"
    readouts = {rows[0]["readout"] for rows in curves.values() if rows}
    same = next(iter(readouts)) if len(readouts) == 1 else readout
    bank = _bank(run, measure, at, same)
    x = dict(zip(run.timeline.ids, run.timeline.shown, strict=True))
    for rows in bank.values():
        axes.plot(
            [x[row["checkpoint"]] for row in rows], _numbers(rows, "value"), color=NULL, lw=0.8, zorder=1
        )
    for name in names:
        if name in run.lessons and run.timeline.steps is not None:
            axes.axvline(
                run.lessons[name],
                color=source.colour if len(colours) == 1 else colours[name],
                ls=":",
                lw=1.2,
                zorder=1.5,
            )
    if source.zero is not None:
        axes.axhline(source.zero, color="#BBBBBB", lw=0.7, zorder=0.5)
    single = len(names) == 1
    words_of: dict[str, str] = {}
    dated = {row["concept"]: row for row in one_readout(onsets)}
    for name, rows in curves.items():
        colour = source.colour if single and len(colours) == 1 else colours[name]
        points, values = [x[row["checkpoint"]] for row in rows], _numbers(rows, "value")
        where = [] if rows[0]["layer"] is None else [f"layer {rows[0]['layer']}"]
        row = dated.get(name)
        place = (rows[0]["layer"], rows[0]["readout"])
        is_its_date = row is not None and (row["layer"], row["readout"]) == place
        words = [date_in_words(row)] if is_its_date and row is not None else []
        words_of[name] = ": ".join(where + words)
        axes.fill_between(
            points, _numbers(rows, "lower"), _numbers(rows, "upper"), color=colour, alpha=0.18, lw=0, zorder=2
        )
        axes.plot(
            points,
            values,
            "-o",
            ms=2.5,
            color=colour,
            lw=1.6,
            zorder=3,
            label=": ".join([", ".join([name, *where]), *words]),
        )
        if is_its_date and row is not None and row["status"] == "ok":
            _date(axes, run.timeline, row, points, values, colour)
    axes.set_title(source.title, fontsize=SMALL + 2, loc="left", pad=27 if single else 14, color=INK)
    axes.set_ylabel(source.unit, fontsize=SMALL, color=INK)
    if single:
        # One curve needs no legend, and words on a curve are hard to read.
        axes.annotate(
            words_of[names[0]],
            (0, 1),
            (0, 14),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=SMALL,
            color=INK,
            annotation_clip=False,
        )
    else:
        axes.legend(frameon=False, fontsize=SMALL - 1, loc="upper left")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.07 * len(names) * (high - low))


def _bank(
    run: Run, measure: str, layer: int | Literal["primary"], readout: str | None
) -> dict[str, list[dict[str, Any]]]:
    rows = run._onset(None, measure, True, True, False).to_pylist()
    topics = sorted({row["concept"] for row in rows if row["null_bank"]})
    return _grouped(read_curves(run, topics, measure, layer, readout, True).to_pylist()) if topics else {}


def _grouped(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(row["concept"], []).append(row)
    return out


def _numbers(rows: list[dict[str, Any]], column: str) -> list[float]:
    return [float("nan") if row[column] is None else row[column] for row in rows]


def _date(
    axes: Axes, line: Timeline, row: dict[str, Any], points: list[float], values: list[float], colour: str
) -> None:
    """A date and its interval, at the height of the curve there."""
    date, lower, upper = span(row)
    bound = next((end for end in (date, lower, upper) if end is not None), None)
    if bound is None:
        return
    at = [line.position(point) for point in points]
    height = float(np.interp(line.position(bound), at, values))
    left, right = axes.get_xlim()
    axes.plot(
        [left if lower is None else lower, right if upper is None else upper],
        [height] * 2,
        color=colour,
        lw=5,
        alpha=0.5,
        solid_capstyle="butt",
        zorder=4,
    )
    if date is not None:
        axes.plot([date], [height], "o", color=colour, ms=7, mec="black", mew=0.8, zorder=5)
    axes.set_xlim(left, right)
