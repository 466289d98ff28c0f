"""Draws the trajectories of a run: behaviour margin and learned change, with the null bank and the dates.

    pip install pandas pyarrow matplotlib
    python notebooks/figure.py reports/demo notebooks/demo.png
"""
import json
import pathlib
import sys

import matplotlib.pyplot as plt
import pandas as pd


def main(folder, out):
    folder = pathlib.Path(folder)
    onset = pd.read_parquet(folder / "onset.parquet")
    curriculum = folder / "series" / "curriculum.json"
    taught = dict(json.loads(curriculum.read_text())["taught_at"]) if curriculum.exists() else {}
    behaviour = pd.read_parquet(folder / "behaviour.parquet").query("persona == 'default'")
    change = pd.read_parquet(folder / "change.parquet")
    primary = onset[(onset.measure == "change") & onset.primary].set_index("concept").layer
    change = change[change.layer == change.concept.map(primary)]
    panels = [
        ("behaviour", behaviour, "margin", "self minus others (nats)", "Behaviour margin"),
        ("change", change, "excess", "beyond the null bank", "Learned change of the representation"),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    concepts = [c for c in onset[~onset.null_bank].concept.unique() if c in set(behaviour.concept)]
    colours = dict(zip(concepts, plt.get_cmap("tab10").colors))
    for axis, (measure, table, column, unit, title) in zip(axes, panels):
        table = table.sort_values("order")
        for _, rows in table[table.null_bank].groupby("concept"):
            axis.plot(rows.step, rows[column], color="0.8", lw=0.8, zorder=1)
        for concept in concepts:
            rows = table[table.concept == concept]
            colour = colours[concept]
            axis.plot(rows.step, rows[column], color=colour, lw=1.8, label=concept, zorder=3)
            axis.fill_between(rows.step, rows[column + "_lower"], rows[column + "_upper"], color=colour, alpha=0.15, lw=0, zorder=2)
            row = onset[(onset.measure == measure) & (onset.concept == concept) & onset.primary & (onset.status == "ok")]
            if len(row):
                row = row.iloc[0]
                y = rows[column].iloc[0] + (rows[column].iloc[-1] - rows[column].iloc[0]) / 2
                axis.plot([row.t50_step_lower, row.t50_step_upper], [y, y], color=colour, lw=5, alpha=0.5, solid_capstyle="butt", zorder=4)
                axis.plot([row.t50_step], [y], "o", color=colour, ms=6, mec="white", zorder=5)
        for step in sorted({step for step in taught.values() if step}):
            axis.axvline(step, color="0.3", ls=":", lw=1, zorder=0)
        axis.set(title=title, xlabel="step", ylabel=unit)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].plot([], [], color="0.8", label="null bank")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("dotted: a lesson begins; dots: midpoint of the rise with its 95% interval", fontsize=9)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:3])
