"""Maps: layers by checkpoints, and checkpoints by checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _measures
from ._curves import find_places, read_curves
from ._style import INK, SMALL, caption, checkpoint_ticks, picture
from ._tables import SelftraceError
from ._words import span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ._run import Run

_EMPTY = "#E4E4E4"


def plot_layers(run: Run, concept: str, measure: str = "contrast", *, readout: str | None = None) -> Figure:
    """A measure of a concept, one row per layer (embedding at the bottom), one column per checkpoint."""
    source = _measures.known(measure)
    rows = read_curves(run, [concept], measure, "all", readout, True).to_pylist()
    layers = sorted({row["layer"] for row in rows if row["layer"] is not None})
    if not layers:
        raise SelftraceError(
            f"{run.folder}: {measure} of {concept} is not read at layers; draw it with plot_curves"
        )
    line = run.timeline
    grid = np.full((len(layers), len(line.ids)), np.nan)
    for row in rows:
        if row["value"] is not None:
            grid[layers.index(row["layer"]), line.ids.index(row["checkpoint"])] = row["value"]
    figure = picture(max(6.0, 2.2 + 0.42 * len(line.ids)), 2.4 + min(0.32 * len(layers), 8.0))
    axes = figure.add_subplot()
    _map(figure, axes, grid, source.zero, source.unit)
    checkpoint_ticks(axes, line)
    every = max(1, -(-len(layers) // 16))
    axes.set_yticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]], fontsize=SMALL)
    axes.set_ylabel("layer", fontsize=SMALL + 1, color=INK)
    axes.set_title(
        f"{run.name}: {concept}, {source.title.lower()} by layer", fontsize=SMALL + 3, loc="left", color=INK
    )
    for row in find_places(run, [concept], measure, "all", readout):
        if row["layer"] in layers:
            at = layers.index(row["layer"])
            date = span(row)[0] if row["status"] == "ok" else None
            if date is not None:
                axes.plot([line.position(date)], [at], "o", ms=7, color="white", mec="black", mew=1.0)
            if row["primary"]:
                axes.plot([-0.5], [at], ">", ms=7, color=INK, clip_on=False)
    caption(
        figure,
        f"Dots: dates, where a layer has one. Triangle: the primary layer. {_readout(rows)}Grey: no number. "
        f"From {source.table}.parquet.",
    )
    return figure


def plot_transfer(run: Run, concept: str, *, layer: int | None = None, readout: str | None = None) -> Figure:
    """Left: a probe fitted at one checkpoint (row), tested at another (column). Right: cosine of the
    contrast's directions at both.

    By default at the primary layer of the contrast.
    """
    place = find_places(run, [concept], "contrast", "primary" if layer is None else layer, readout)[0]
    where = {key: place[key] for key in ("concept", "label_family", "layer", "readout")}
    line = run.timeline
    size = max(3.2, min(0.22 * len(line.ids), 7.0))
    figure = picture(2 * size + 3.4, size + 1.5)
    panels = (
        ("transfer", "auroc_rescaled", "Probe: fitted at row, tested at column", "AUROC", 0.5, "fitted at"),
        ("similarity", "cos_cv", "Directions: cosine, noise removed", "cosine", 0.0, "checkpoint"),
    )
    for index, (table, value, title, unit, zero, rows_are) in enumerate(panels):
        columns = ["checkpoint", "to_checkpoint", value]
        rows = run._read(table, columns, where).to_pylist()
        if not rows:
            raise SelftraceError(
                f"{run.folder / table}.parquet: nothing about {concept} at layer {where['layer']}, "
                f"{where['readout']}"
            )
        grid = np.full((len(line.ids), len(line.ids)), np.nan)
        for row in rows:
            if row[value] is not None:
                grid[line.ids.index(row["checkpoint"]), line.ids.index(row["to_checkpoint"])] = row[value]
        axes = figure.add_subplot(1, 2, index + 1)
        _map(figure, axes, grid, zero, unit, limit=0.5 if zero else 1.0)
        axes.set_aspect("equal")
        checkpoint_ticks(axes, line)
        checkpoint_ticks(axes, line, "y")
        axes.set_ylabel(rows_are, fontsize=SMALL, color=INK)
        axes.set_title(title, fontsize=SMALL + 1, loc="left", color=INK)
    figure.suptitle(
        f"{run.name}: {concept} at layer {where['layer']}", fontsize=SMALL + 3, x=0.01, ha="left", color=INK
    )
    caption(
        figure,
        "A block along the diagonal is a direction that stays. Grey: no number; a cosine needs a contrast "
        "at both checkpoints.\n"
        f"Probes' scores are rescaled at the column's checkpoint. Read at {where['readout']}. From "
        "transfer.parquet and similarity.parquet.",
    )
    return figure


def _map(
    figure: Figure, axes: Axes, grid: np.ndarray, zero: float | None, unit: str, limit: float | None = None
) -> None:
    """A grid with row 0 at the bottom; colours diverge from `zero`, or run up from 0 for amplitudes."""
    from matplotlib import colormaps

    there = grid[np.isfinite(grid)]
    colours = colormaps["viridis" if zero is None else "RdBu_r"].with_extremes(bad=_EMPTY)
    if zero is None:
        low, high = (min(0.0, float(there.min())), float(there.max())) if there.size else (0.0, 1.0)
    else:
        reach = limit or (float(np.abs(there - zero).max()) if there.size else 1.0) or 1.0
        low, high = zero - reach, zero + reach
    image = axes.imshow(
        np.ma.masked_invalid(grid),
        cmap=colours,
        vmin=low,
        vmax=high if high > low else low + 1.0,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
    bar.set_label(unit, fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL - 1)
    bar.outline.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, labelsize=SMALL, length=2)


def _readout(rows: list[dict[str, Any]]) -> str:
    readout = rows[0]["readout"] if rows else None
    return f"Read at {readout}. " if readout else ""
