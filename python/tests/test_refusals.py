"""Every mistake gets one sentence that says what was found and what to do."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import ONSET, make_run, onset_rows, write

import selftrace
from selftrace import SelftraceError


def refused(call, *parts: str) -> None:
    with pytest.raises(SelftraceError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and all(part in text for part in parts), text


def test_no_run(tmp_path: Path) -> None:
    refused(lambda: selftrace.load(tmp_path / "nowhere"), "nowhere: no such folder")
    refused(lambda: selftrace.load(tmp_path), "not a run, it has no run.json")
    (tmp_path / "run.json").write_text("{")
    refused(lambda: selftrace.load(tmp_path), "run.json: cannot be read as a run")
    (tmp_path / "run.json").write_text('{"seed": 0}')
    refused(lambda: selftrace.load(tmp_path), "run.json: cannot be read as a run", "'run'")


def test_no_table(run: selftrace.Run, tmp_path: Path) -> None:
    refused(lambda: run.table("onsets"), "no table 'onsets'; it has behaviour, evidence, gram")
    refused(lambda: run.table("causal"), "no causal.parquet; `selftrace analyze` writes it", "[causal]")
    refused(
        lambda: run.curves("own_name", "change"),
        "no measure 'change'; it has assistant_axis, behaviour, contrast, lens, probe",
    )
    refused(lambda: run.compare(tmp_path / "other"), "no such comparison; `selftrace compare")
    (tmp_path / "run.json").write_text('{"run": "empty"}')
    refused(selftrace.load(tmp_path).onset, "no tables; `selftrace analyze` writes them")


def test_no_such_name(run: selftrace.Run) -> None:
    refused(lambda: run.onset("own_nme"), "no concept 'own_nme'; it has assistant_axis, colour, hat")
    refused(lambda: run.onset(["own_name", "nobody"]), "no concept 'nobody'")
    refused(lambda: run.onset(measure="len"), "no measure 'len'")
    refused(
        lambda: run.curves("own_name", "spelling"),
        "measure 'spelling' has no curve",
        "behaviour, recognition, stitched, lens",
    )
    refused(
        lambda: run.curves("own_name", "assistant_axis"),
        "no row of concept 'own_name', measure 'assistant_axis'",
    )
    refused(lambda: run.curves("own_name", "lens", layer=9), "lens has no layer 9; it has 1, 2, 3")
    refused(lambda: run.curves("own_name", "lens", readout="mean"), "not read at 'mean'; it has last_prompt")
    refused(lambda: run.gram("nobody"), "no concept 'nobody'")
    refused(lambda: run.evidence(hypothesis="self"), "no hypothesis 'self'; it has functional_self, void")
    refused(lambda: run.evidence(checkpoint="sft-9"), "no checkpoint 'sft-9'; it has base-0")
    refused(lambda: run.table("lens", ["value"]), "no column 'value'; its columns are run")
    refused(lambda: run.table("lens", where={"depth": 1}), "no column 'depth'")
    refused(lambda: run.plot_layers("own_name", "behaviour"), "not read at layers")
    refused(lambda: run.plot_transfer("hat"), "transfer.parquet: nothing about hat at layer 3")
    refused(lambda: run.plot_curves("own_maker", "assistant_axis"), "no row of own_maker by assistant_axis")


def test_a_measure_without_a_primary_layer(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "small")
    write(
        folder / "onset.parquet",
        [{**row, "primary": row["primary"] and row["measure"] != "lens"} for row in onset_rows()],
        ONSET,
    )
    run = selftrace.load(folder)
    refused(lambda: run.curves("own_name", "lens"), "lens has no primary layer", "1, 2, 3, or 'all'")
    assert len(run.curves("own_name", "lens", layer=2)) == 6


def test_another_version_and_what_is_no_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "small")
    run = selftrace.load(folder)
    write(folder / "onset.parquet", onset_rows(), ONSET, version="99")
    refused(run.onset, "onset.parquet: schema version 99, and this package reads", "install the package")
    write(folder / "onset.parquet", onset_rows(), ONSET, version=None)
    refused(run.onset, "not a table of selftrace")
    whole = (folder / "lens.parquet").read_bytes()
    (folder / "lens.parquet").write_bytes(whole[: len(whole) // 2])
    refused(lambda: run.table("lens"), "lens.parquet: cannot be read as Parquet")
    write(folder / "items.parquet", [], ONSET, version=None)
    assert len(run.table("items")) == 0, "items may be another tool's"


def test_an_engine_that_is_none_or_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(lambda: selftrace.load(folder, engine="excel"), "'excel' is none of pandas, polars, duckdb")
    monkeypatch.setitem(sys.modules, "polars", None)
    refused(selftrace.load(folder, engine="polars").onset, "'polars' is not installed: pip install polars")


def test_an_analysis_that_did_not_finish_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "small")
    (folder / ".analysis").unlink()
    with pytest.warns(UserWarning, match="the last analysis did not finish"):
        selftrace.load(folder)


def test_every_status_of_these_sources_has_words() -> None:
    words = Path(__file__).parents[2] / "src" / "words.rs"
    if not words.is_file():
        pytest.skip("not among the sources of selftrace")
    statuses = words.read_text().split("pub enum Status {")[1].split("\n    }")[0]
    found = set(re.findall(r'= "([a-z_]+)"', statuses))
    assert len(found) > 30 and not found - set(selftrace.STATUSES), sorted(found - set(selftrace.STATUSES))
