"""The notebooks run, on the demos where there are some and on small runs where there are none, and are
committed with what they showed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import make_run, write
from test_demo import DEMO

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
#: Notebook to the runs that it names and the number of its pictures.
COMMITTED = {"reading_a_run": (["demo"], 4), "comparing_runs": (["demo", "demo-wish-first"], 2)}


def code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def small_runs(folder: Path, names: list[str]) -> Path:
    """Runs of these names and, of two, their comparison."""
    for name in names:
        make_run(folder / name, name)
    if len(names) == 2:
        numbers = [
            f"{name}{end}"
            for name in ("shift_step", "level_difference")
            for end in ("", "_lower", "_upper")
        ]
        numbers += ["p_a_first", "level_a", "level_b"]
        words = ["concept", "label_family", "measure", "status", "status_a", "status_b"]
        schema = {
            **dict.fromkeys(words, pa.string()),
            **dict.fromkeys(["null_bank", "primary"], pa.bool_()),
            "layer": pa.int32(),
            **dict.fromkeys(numbers, pa.float64()),
        }
        row = {
            **dict.fromkeys(words, "ok"),
            "label_family": "stem",
            "null_bank": False,
            "primary": True,
            "layer": None,
            **dict.fromkeys(numbers, 0.5),
        }
        silent = {**row, "status": "gate_fail", "shift_step": None, "concept": "own_maker"}
        rows = [
            {**row, "concept": "own_name", "measure": "behaviour"},
            {**silent, "measure": "lens"},
            {**silent, "concept": "hat", "null_bank": True, "measure": "lens"},
        ]
        (folder / f"{names[0]}-vs-{names[1]}").mkdir()
        write(folder / f"{names[0]}-vs-{names[1]}" / "compare.parquet", rows, schema)
    return folder


@pytest.mark.parametrize("name", COMMITTED)
def test_the_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip(
        "nbclient", reason="the notebook is run with nbclient: pip install nbclient ipykernel"
    )
    pytest.importorskip(
        "ipykernel", reason="the notebook is run with ipykernel: pip install nbclient ipykernel"
    )
    pytest.importorskip("matplotlib")
    import nbformat

    runs, n_pictures = COMMITTED[name]
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    needed = [*runs, *([f"{runs[0]}-vs-{runs[1]}"] if len(runs) == 2 else [])]
    there = all((DEMO.parent / run).is_dir() for run in needed) and DEMO.name == "demo"
    folder = DEMO.parent if there and (DEMO / ".analysis").exists() else small_runs(tmp_path, runs)
    for run in runs:
        named = f'"../reports/{run}"'
        assert sum(named in cell.source for cell in code(notebook)) == 1
        for cell in code(notebook):
            cell.source = cell.source.replace(named, repr(str(folder / run)))
    package = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])))
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == n_pictures
    assert not [output for output in outputs if output.get("name") == "stderr"], "no warnings"


@pytest.mark.parametrize("name", COMMITTED)
def test_the_notebook_is_committed_with_outputs_and_small(name: str) -> None:
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert all(cell["outputs"] for cell in code(json.loads(text)))
    assert len(text) < 600_000
    assert "/home/" not in text and "/tmp/" not in text, (
        "no path of the machine where it was run"
    )
