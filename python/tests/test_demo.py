"""A real run, where there is one: that of `make demo`, or the folder in SELFTRACE_RUN."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import selftrace
from selftrace._measures import MEASURES

DEMO = Path(os.environ.get("SELFTRACE_RUN", Path(__file__).parents[2] / "reports" / "demo"))


@pytest.fixture(scope="module")
def demo() -> selftrace.Run:
    if not (DEMO / ".analysis").exists():
        pytest.skip(f"no analysed run in {DEMO}: make demo")
    return selftrace.load(DEMO)


def test_every_row_has_its_date_in_words(demo: selftrace.Run) -> None:
    rows = demo.onset(null_bank=True, primary=False)
    assert {*rows.measure} <= {*MEASURES}, "measures whose curves this package does not know"
    assert {*rows.status} <= {*selftrace.STATUSES} and {*rows["shape"]} <= {*selftrace.SHAPES}
    assert all(map(selftrace.date_in_words, rows.to_dict("records")))
    assert (rows.t50.notna() <= (rows.status == "ok")).all(), "only what is ok has a date"


def test_steps_are_those_in_which_dates_are(demo: selftrace.Run) -> None:
    line, rows = demo.timeline, demo.onset().dropna(subset=["t50", "t50_step"])
    assert len(rows) and line.steps is not None
    x = np.interp(np.log1p(rows.t50_step), np.log1p(line.steps), line.x)
    inside = rows.t50.between(line.x[0], line.x[-1])
    assert x[inside] == pytest.approx(rows.t50[inside].to_numpy(), abs=1e-6)


def test_every_measure_has_its_curve(demo: selftrace.Run) -> None:
    for measure in demo.onset().measure.unique():
        concepts = set(demo.onset(measure=measure).concept)
        curves = demo.curves(sorted(concepts), measure)
        assert set(curves.concept) == concepts and set(curves.groupby("concept").size()) == {
            len(demo.timeline.ids)
        }, measure


def test_kernels_give_the_amplitudes(demo: selftrace.Run) -> None:
    gram, curve = demo.gram("own_name"), demo.curves("own_name", "contrast")
    n = len(gram.groups)
    u = [(k.sum() - np.trace(k)) / (n * (n - 1)) for k in gram.kernel.astype(float)]
    assert np.sign(u) * np.sqrt(np.abs(u)) == pytest.approx(curve.value.to_numpy(), rel=1e-5)


def test_it_can_be_drawn(demo: selftrace.Run) -> None:
    pytest.importorskip("matplotlib")
    for figure in (
        demo.plot_onsets(),
        demo.plot_curves("own_name"),
        demo.plot_layers("own_name"),
        demo.plot_transfer("own_name"),
    ):
        assert len(figure._repr_png_()) > 10_000
