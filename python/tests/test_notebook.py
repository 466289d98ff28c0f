"""The notebook runs, on the demo where there is one and on the small run where there is none, and is
committed with what it showed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_demo import DEMO

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "reading_a_run.ipynb"
RUN = '"../reports/demo"'


def code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip(
        "nbclient", reason="the notebook is run with nbclient: pip install nbclient ipykernel"
    )
    pytest.importorskip(
        "ipykernel", reason="the notebook is run with ipykernel: pip install nbclient ipykernel"
    )
    pytest.importorskip("matplotlib")
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    run = DEMO if (DEMO / ".analysis").exists() else folder
    assert sum(RUN in cell.source for cell in code(notebook)) == 1
    for cell in code(notebook):
        cell.source = cell.source.replace(RUN, repr(str(run)))
    package = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])))
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    pictures = [
        output for cell in code(notebook) for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
    assert not [
        output for cell in code(notebook) for output in cell.outputs if output.get("name") == "stderr"
    ], "no warnings"


def test_the_notebook_is_committed_with_outputs_and_small() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert all(cell["outputs"] for cell in code(json.loads(text)))
    assert len(text) < 600_000
    assert "/home/" not in text and "/tmp/" not in text, (
        "no path of the machine where it was run"
    )
