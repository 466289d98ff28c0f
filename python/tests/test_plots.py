"""Pictures: what is in them, read from matplotlib's own objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from conftest import make_run
from matplotlib.colors import to_rgb

import selftrace
from selftrace._style import NULL


def words(figure) -> list[str]:
    """Every text of a figure, captions and labels included."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def points(axes, marker: str) -> list[tuple[float, float]]:
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axes.lines
        if line.get_marker() == marker and len(line.get_xdata()) == 1
    ]


def test_the_forest_plot_has_every_date_bound_and_reason(run: selftrace.Run) -> None:
    figure = run.plot_onsets()
    axes, text = figure.axes[0], words(figure)
    assert "200.5 [200, 251]   at base | sft" in text and "240 [210, ...]" in text and "after 301" in text
    assert text.count(selftrace.STATUSES["already_preferred"]) == 2 and "absent" in text
    assert any("No date by probe: nothing of its kind" in line for line in text), (
        "what could not be dated is said and fills no lines"
    )
    assert text.index("own_name") < text.index("keep_running") < text.index("own_maker"), "earliest first"
    assert sorted({x for x, _ in points(axes, "o")}) == [200.5, 240.0]
    assert {x for x, _ in points(axes, ">")} == {axes.get_xlim()[1]}, (
        "open ends and bounds point out of the picture"
    )
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 3.2]
    assert any(np.allclose(bar, [200, 251]) for bar in bars) and any(np.isclose(bar[0], 301) for bar in bars)


def test_the_null_bank_is_grey_and_counted(run: selftrace.Run) -> None:
    figure = run.plot_onsets()
    assert "1 of 2 dated: hat" in words(figure) and "0 of 2 dated" in words(figure)
    grey = [
        line
        for line in figure.axes[0].lines
        if line.get_marker() == "o" and to_rgb(line.get_color()) == to_rgb(NULL)
    ]
    assert len(grey) == 1


def test_the_forest_plot_of_some(run: selftrace.Run) -> None:
    text = words(run.plot_onsets("probe"))
    assert text.count(selftrace.STATUSES["no_foils"]) >= 4, "what is asked for is drawn, dated or not"
    assert "keep_running" not in words(run.plot_onsets(concepts="own_name"))
    assert any("span_last" in line for line in words(run.plot_onsets(readouts="all")))


def test_stages_and_checkpoints_are_on_the_axis(run: selftrace.Run) -> None:
    axes = run.plot_onsets().axes[0]
    assert {"base", "sft"} <= {text.get_text() for text in axes.texts}
    marks = next(line for line in axes.lines if line.get_marker() == "|" and len(line.get_xdata()) > 1)
    assert list(marks.get_xdata()) == [0, 100, 200, 201, 251, 301]


def test_curves_have_a_panel_per_measure_with_the_null_bank_behind(run: selftrace.Run) -> None:
    figure = run.plot_curves("own_name", ["behaviour", "contrast"])
    behaviour, contrast = figure.axes
    assert behaviour.get_title(loc="left") == "Behaviour"
    lines = [line for line in contrast.lines if len(line.get_xdata()) == 6 and line.get_marker() != "|"]
    assert len(lines) == 3, "two null topics and the concept"
    curve = run.curves("own_name", "contrast")
    assert np.allclose(lines[-1].get_ydata(), curve.value) and np.allclose(lines[-1].get_xdata(), curve.steps)
    assert "200.5 [200, 251]" in words(figure) and points(behaviour, "o")[0][0] == 200.5


def test_curves_of_several_concepts_have_a_legend(run: selftrace.Run) -> None:
    axes = run.plot_curves(["own_name", "keep_running"], "lens").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "own_name, layer 3: 200.5 [200, 251]",
        "keep_running, layer 3: after 301",
    ]
    assert len(run.plot_curves("own_name").axes) == 4, "all measures that it has"
    run.plot_curves("own_name", "lens", layer=1)


def test_lessons_are_dotted_where_a_curriculum_is_known(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "small")
    (folder / "series").mkdir()
    (folder / "series" / "curriculum.json").write_text(
        '{"taught_at": [["own_name", 200], ["own_maker", null]]}'
    )
    run = selftrace.load(folder)
    assert run.lessons == {"own_name": 200.0}
    for figure in (run.plot_onsets(), run.plot_curves("own_name", "lens")):
        dotted = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
        assert dotted and set(dotted) == {200.0}
        assert any("Dotted: a lesson begins." in line.replace("\n", " ") for line in words(figure))


def test_layers_by_checkpoints(run: selftrace.Run) -> None:
    axes = run.plot_layers("own_name", "lens").axes[0]
    grid = axes.images[0].get_array()
    assert grid.shape == (3, 6) and np.allclose(grid[0], run.curves("own_name", "lens", layer=1).value), (
        "the lowest layer is the lowest row"
    )
    assert len(points(axes, "o")) == 3 and points(axes, ">") == [(-0.5, 2.0)]


def test_checkpoints_by_checkpoints(run: selftrace.Run) -> None:
    transfer, cosine = (axes for axes in run.plot_transfer("own_name").axes if axes.images)
    assert transfer.images[0].get_array()[1, 4] == pytest.approx(0.55), (
        "fitted at the row's, tested at the column's"
    )
    assert cosine.images[0].get_array().mask[:2].all() and not cosine.images[0].get_array().mask[2:].any()


def test_pictures_are_shown_by_notebooks_and_saved(run: selftrace.Run, tmp_path: Path) -> None:
    figure = run.plot_onsets()
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "onsets.svg")
    assert (tmp_path / "onsets.svg").stat().st_size > 10_000


def test_a_long_series_on_a_logarithmic_axis_and_formulas_in_names(tmp_path: Path) -> None:
    run = selftrace.load(make_run(tmp_path / "small", "what is no formula: $x_1_2$"))
    run.config["checkpoints"][5]["step"] = 200_000
    for figure in (run.plot_onsets(), run.plot_curves("own_name", "lens")):
        assert figure.axes[0].get_xscale() == "symlog"
        figure._repr_png_()
