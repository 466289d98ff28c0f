"""Frames: which rows, which columns, which types."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import CONCEPTS, ONSET, STEPS, amplitude, make_run, onset_rows, rise, write

import selftrace

ROOT = Path(__file__).parents[2]


def test_onsets_are_of_asked_concepts_at_their_primary_layer(run: selftrace.Run) -> None:
    rows = run.onset()
    assert set(rows.concept) == {name for name, bank in CONCEPTS.items() if not bank} | {"assistant_axis"}
    assert rows.primary.all() and not rows.null_bank.any() and "control" not in set(rows.label_family)
    assert set(run.onset("hat", "lens", primary=False).layer) == {1, 2, 3}, (
        "a null topic that is named is meant"
    )
    assert set(run.onset(null_bank=True).concept) > set(CONCEPTS)
    assert "control" in set(run.onset(controls=True).label_family)


def test_integers_and_booleans_stay_beside_nulls(run: selftrace.Run) -> None:
    rows = run.onset()
    assert rows.layer.isna().any() and rows.at_edge.isna().any()
    assert rows.layer.dtype == pd.Int32Dtype() and rows.at_edge.dtype == pd.BooleanDtype()
    assert rows.t50.dtype == np.float64
    assert run.curves("own_name", "behaviour").step.tolist() == [0, 100, 200, 0, 50, 100]


def test_dates_say_in_words_what_a_row_says(run: selftrace.Run) -> None:
    dates = run.dates().set_index("concept")
    assert dates.loc["own_name", "behaviour"] == "200.5 [200, 251]"
    assert dates.loc["own_name", "contrast"] == "240 [210, ...]", "an open end"
    assert dates.loc["keep_running", "behaviour"] == "after 301", "beyond the last checkpoint"
    assert dates.loc["honest", "lens"] == selftrace.STATUSES["already_preferred"]
    assert dates.loc["own_maker", "lens"] == "absent"
    assert dates.loc["own_maker", "probe"] == selftrace.STATUSES["no_foils"]
    assert dates.loc["own_name", "assistant_axis"] == "not measured"
    assert list(dates.columns) == ["behaviour", "lens", "contrast", "probe", "assistant_axis"]
    assert "hat" in set(run.dates(null_bank=True).concept)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ({"t50_step_upper": 400.0}, "before 400"),
        ({"t50": 6.05, "t50_lower": 5.99, "t50_upper": 6.1}, "6.05 [5.99, 6.1]"),
        ({"t50_step": 12345.6, "t50_step_upper": 23456.0}, "12346 [..., 23456]"),
        ({"t50_step": 0.0012346, "t50_step_lower": 0.0, "t50_step_upper": 0.01}, "0.001235 [0, 0.01]"),
        ({"t50_step_lower": 1.0, "t50_step_upper": 2.0}, "between 1 and 2"),
        ({}, "emerges, no date"),
    ],
)
def test_a_date_in_words(ends: dict[str, float], words: str) -> None:
    empty = {f"t50{unit}{end}": None for unit in ("", "_step") for end in ("", "_lower", "_upper")}
    assert selftrace.date_in_words({**empty, "status": "ok", "shape": "emerges", **ends}) == words
    nan = {key: float("nan") for key in empty}
    assert selftrace.date_in_words({**nan, "status": "ok", "shape": "emerges", **ends}) == words, (
        "as pandas has nulls"
    )


def test_steps_go_on_where_a_stage_restarts_and_what_was_left_out_has_none(run: selftrace.Run) -> None:
    assert run.timeline.steps == tuple(STEPS[:-1])
    assert run.timeline.x == pytest.approx(np.log1p(STEPS[:-1]))
    assert run.timeline.stage_spans() == [("base", 0, 2), ("sft", 3, 5)]
    assert run.timeline.position(226.0) == pytest.approx(3.5)
    assert run.curves("own_name", "behaviour").steps.tolist() == STEPS[:-1]


@pytest.mark.parametrize(
    ("axis", "checkpoints", "x"),
    [
        ("index", [("a", None), ("a", None)], [0, 1]),
        ("stage_progress", [("a", 0), ("a", 9), ("b", 0), ("b", 4)], [0.1, 1.0, 1.2, 2.0]),
        ("stage_progress", [("a", None), ("a", None), ("b", 3)], [0.5, 1.0, 2.0]),
        ("step_log", [("a", 10), ("b", 5)], np.log1p([10, 15])),
    ],
)
def test_the_axis_is_that_of_the_run(axis: str, checkpoints: list, x: list[float]) -> None:
    from selftrace._timeline import timeline

    line = timeline(
        axis, [{"id": str(at), "stage": stage, "step": step} for at, (stage, step) in enumerate(checkpoints)]
    )
    assert line.x == pytest.approx(list(x))
    assert (line.steps is None) == any(step is None for _, step in checkpoints)


def test_a_curve_is_the_column_that_is_dated(run: selftrace.Run) -> None:
    own = run.curves("own_name", "behaviour")
    assert own.value.tolist() == pytest.approx([2 * rise("own_name", order) for order in range(6)]), (
        "the margin against foils, asked plainly"
    )
    assert run.curves("honest", "behaviour").value.tolist() == pytest.approx(
        [-rise("honest", order) for order in range(6)]
    ), "no foils"
    assert (own.lower < own.value).all() and (own.value < own.upper).all()
    lens = run.curves("own_name", "lens", layer=2)
    assert lens.value.tolist() == pytest.approx([rise("own_name", order, 2) for order in range(6)]) and set(
        lens.layer
    ) == {2}
    assert len(run.curves("own_name", "lens", layer="all")) == 18
    assert (run.curves("own_name", "probe").value == 0.7).all(), "the logistic probe"
    assert len(run.curves("assistant_axis", "assistant_axis")) == 6
    contrast = run.curves("own_name", "contrast")
    assert (contrast.value > -9).all() and set(contrast.readout) == {"last_prompt"}, (
        "crossed, at the last prompt token"
    )
    assert (run.curves("own_name", "contrast", readout="span_last").value == -9).all()


def test_curves_of_several_and_of_all(run: selftrace.Run) -> None:
    assert set(run.curves(["own_name", "hat"], "lens").concept) == {"own_name", "hat"}
    assert set(run.curves(None, "lens").concept) == set(CONCEPTS)
    asked = run.curves(None, "contrast", null_bank=False)
    assert set(asked.concept) == {name for name, bank in CONCEPTS.items() if not bank}
    hat = run.curves("hat", "contrast")
    assert hat.null_bank.all(), "although trajectory.parquet has no such column"


def test_a_kernel_gives_the_amplitude(run: selftrace.Run) -> None:
    gram = run.gram("own_name", layer=2)
    assert (
        gram.kernel.shape == (6, 4, 4)
        and gram.groups == ("g0", "g1", "g2", "g3")
        and gram.checkpoints == run.timeline.ids
    )
    curve = run.curves("own_name", "contrast", layer=2).value
    assert [amplitude(k) for k in gram.kernel] == pytest.approx(curve.tolist(), abs=1e-6)
    assert run.gram("own_name").layer == 3


def test_evidence_is_that_of_the_last_checkpoint(run: selftrace.Run) -> None:
    assert set(run.evidence().checkpoint) == {"sft-100"} and not run.evidence().null_bank.any()
    assert set(run.evidence("own_name", checkpoint=None).checkpoint) == set(run.timeline.ids)
    assert set(run.evidence(hypothesis="void", checkpoint="base-0").hypothesis) == {"void"}
    assert run.evidence().layer.dtype == pd.Int32Dtype()


def test_tables_are_read_in_part(run: selftrace.Run) -> None:
    rows = run.table("lens", columns=["concept", "lens"], where={"layer": [1, 2], "checkpoint": "base-0"})
    assert list(rows.columns) == ["concept", "lens"] and len(rows) == 2 * len(CONCEPTS)
    assert run.table("onset", where={"layer": None}).measure.unique().tolist() == ["behaviour"]
    assert run.metadata("lens") == {
        "schema_version": "1",
        "run_hash": "abc",
        "layer_convention": "layer 0 = embedding output",
    }


def test_columns_have_units_and_docs_where_the_table_has_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "small")
    plain = selftrace.load(folder).describe("onset").set_index("column")
    assert plain.loc["layer", "type"] == "int32" and plain.doc.isna().all()
    docs = {"delta": {"unit": "units of the measure", "doc": "Late minus reference checkpoints."}}
    write(folder / "onset.parquet", onset_rows(), ONSET, columns=json.dumps(docs))
    described = selftrace.load(folder).describe("onset").set_index("column")
    assert described.loc["delta", "unit"] == "units of the measure" and described.loc[
        "delta", "doc"
    ].startswith("Late minus")
    assert described.unit.notna().sum() == 1


def test_dictionaries_are_strings(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "small")
    write(
        folder / "agreement.parquet",
        [{"specification": "silent"}, {"specification": None}],
        {"specification": pa.dictionary(pa.int32(), pa.string())},
    )
    column = selftrace.load(folder).table("agreement").specification
    assert not isinstance(column.dtype, pd.CategoricalDtype) and column[0] == "silent" and pd.isna(column[1])


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_other_engines_have_the_same_rows(folder: Path, engine: str) -> None:
    pytest.importorskip(engine)
    run, pandas = selftrace.load(folder, engine=engine), selftrace.load(folder)
    for ask in (
        lambda run: run.onset(),
        lambda run: run.curves("own_name", "lens"),
        lambda run: run.dates(),
        lambda run: run.describe("lens"),
    ):
        found, expected = ask(run), ask(pandas)
        if engine == "polars":
            rows, columns = found.rows(), found.columns
        else:
            rows, columns = found.fetchall(), found.columns
        assert list(columns) == list(expected.columns)
        plain = [
            tuple(None if pd.isna(value) else value for value in row)
            for row in expected.itertuples(index=False, name=None)
        ]
        assert rows == plain


def test_a_comparison_is_found_beside_the_first_run(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", "a"), make_run(tmp_path / "b", "b")
    schema = {
        "concept": pa.string(),
        **{key: pa.bool_() for key in ("null_bank", "primary")},
        "label_family": pa.string(),
        "measure": pa.string(),
        "layer": pa.int32(),
        "shift": pa.float64(),
    }
    row = {
        "concept": "own_name",
        "null_bank": False,
        "primary": True,
        "label_family": "crossed",
        "measure": "contrast",
        "layer": None,
        "shift": 0.5,
    }
    (tmp_path / "a-vs-b").mkdir()
    rows = [
        row,
        {**row, "concept": "hat", "null_bank": True},
        {**row, "primary": False},
        {**row, "label_family": "control"},
    ]
    write(tmp_path / "a-vs-b" / "compare.parquet", rows, schema)
    found = selftrace.load(a).compare(selftrace.load(b))
    assert len(found) == 1 and found["shift"].tolist() == [0.5] and found.layer.dtype == pd.Int32Dtype()
    assert len(selftrace.compare(tmp_path / "a-vs-b", null_bank=True)) == 2
    assert len(selftrace.compare(a, b, primary=False)) == 2
    assert selftrace.compare(a, b, concept="hat").concept.tolist() == ["hat"]
    with pytest.raises(
        selftrace.SelftraceError, match="there is a-vs-b, whose differences have the other sign"
    ):
        selftrace.compare(b, a)
    with pytest.raises(selftrace.SelftraceError, match=r"read it with selftrace\.compare"):
        selftrace.load(tmp_path / "a-vs-b")


def test_this_package_reads_what_these_sources_write() -> None:
    source = ROOT / "src" / "table.rs"
    if not source.exists():
        pytest.skip("not among the sources of selftrace")
    written = re.search(r'SCHEMA_VERSION: &str = "(\d+)"', source.read_text())
    assert written is not None and written[1] in selftrace.SCHEMA_VERSIONS
