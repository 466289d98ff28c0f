"""The curve of a measure, whichever table and column it is in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from . import _measures, _tables
from ._tables import SelftraceError

if TYPE_CHECKING:
    from ._run import Run

Layer = int | Literal["primary", "all"]


def as_list(asked: str | Iterable[str]) -> list[str]:
    """One name, or several."""
    return [asked] if isinstance(asked, str) else list(asked)


def one_readout(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows at the last prompt token or, for what is not read there, at the first readout; of several label
    families the crossed one's.
    """

    def preference(row: dict[str, Any]) -> tuple[bool, str, bool, str]:
        return (
            row["label_family"] != "crossed",
            row["label_family"],
            row["readout"] not in (None, "last_prompt"),
            row["readout"] or "",
        )

    best: dict[tuple[str, str], tuple[bool, str, bool, str]] = {}
    for row in rows:
        key = (row["concept"], row["measure"])
        best[key] = min(best.get(key, preference(row)), preference(row))
    return [row for row in rows if preference(row) == best[(row["concept"], row["measure"])]]


def find_places(
    run: Run,
    concepts: list[str] | None,
    measure: str,
    layer: Layer,
    readout: str | None,
    null_bank: bool = True,
) -> list[dict[str, Any]]:
    """Concept, label family, readout and layer of the curves that are asked for."""
    rows = run._onset(concepts, measure, False, null_bank, False).to_pylist()
    readouts = sorted({row["readout"] for row in rows if row["readout"] is not None})
    if readout is not None and readout not in readouts:
        raise SelftraceError(
            f"{run._path('onset')}: {measure} is not read at {readout!r}; it has "
            f"{', '.join(readouts) or 'no readouts'}"
        )
    rows = [row for row in rows if row["readout"] == readout] if readout is not None else one_readout(rows)
    layers = sorted({row["layer"] for row in rows if row["layer"] is not None})
    if layer == "primary" or not layers:
        chosen = [row for row in rows if row["primary"]]
        if rows and not chosen:
            numbers = ", ".join(map(str, layers))
            raise SelftraceError(
                f"{run._path('onset')}: {measure} has no primary layer for what is asked for; give one of "
                f"{numbers}, or 'all'"
            )
        return chosen
    if layer == "all":
        return rows
    if layer not in layers:
        raise SelftraceError(
            f"{run._path('onset')}: {measure} has no layer {layer}; it has {', '.join(map(str, layers))}"
        )
    return [row for row in rows if row["layer"] == layer]


def read_curves(
    run: Run,
    concept: str | Iterable[str] | None,
    measure: str,
    layer: Layer,
    readout: str | None,
    null_bank: bool,
) -> pa.Table:
    """See `Run.curves`."""
    source = _measures.known(measure)
    concepts = None if concept is None else as_list(concept)
    places = find_places(run, concepts, measure, layer, readout, null_bank)
    found = _schema_names(run._path(source.table))
    keys = [key for key in ("label_family", "layer", "readout") if key in found]
    # Stems are a family of onsets alone, their tables have no such column.
    wanted = {(place["concept"], *(place[key] for key in keys)): place["null_bank"] for place in places}
    values = [value for value in source.values if value in found]
    ends = {
        value: ("lower", "upper") if value == "value" else (f"{value}_lower", f"{value}_upper")
        for value in values
    }
    plain = [
        "checkpoint",
        "stage",
        "step",
        "order",
        *(["concept"] if "concept" in found else []),
        *keys,
        "status",
    ]
    columns = [*plain, *(name for value in values for name in (value, *ends[value]) if name in found)]
    where = dict(source.where)
    if "concept" in found:
        where["concept"] = sorted({place["concept"] for place in places})
    if "layer" in found and places:
        where["layer"] = sorted({place["layer"] for place in places})
    rows = run._read(source.table, columns, where or None).to_pylist() if places else []
    # The assistant axis is its own concept.
    rows = [row if "concept" in row else {**row, "concept": measure} for row in rows]
    rows = [row for row in rows if (row["concept"], *(row[key] for key in keys)) in wanted]
    if concepts is not None and not rows:
        raise SelftraceError(f"{run._path(source.table)}: no curve of {', '.join(concepts)} by {measure}")
    chosen = {
        name: _first(values, [row for row in rows if row["concept"] == name])
        for name in {row["concept"] for row in rows}
    }
    steps = dict(zip(run.timeline.ids, run.timeline.steps or (), strict=False))
    out = []
    for row in sorted(rows, key=lambda row: (row["concept"], row.get("layer") or 0, row["order"])):
        value = chosen[row["concept"]]
        out.append(
            {
                "concept": row["concept"],
                "null_bank": wanted[(row["concept"], *(row[key] for key in keys))],
                "measure": measure,
                "layer": row.get("layer"),
                "readout": row.get("readout"),
                **{key: row[key] for key in ("checkpoint", "stage", "step", "order")},
                "steps": steps.get(row["checkpoint"]),
                "value": row[value],
                "lower": row.get(ends[value][0]),
                "upper": row.get(ends[value][1]),
                "status": row["status"],
            }
        )
    return pa.Table.from_pylist(out, schema=_CURVES)


_CURVES = pa.schema(
    [
        ("concept", pa.string()),
        ("null_bank", pa.bool_()),
        ("measure", pa.string()),
        ("layer", pa.int32()),
        ("readout", pa.string()),
        ("checkpoint", pa.string()),
        ("stage", pa.string()),
        ("step", pa.int64()),
        ("order", pa.int32()),
        ("steps", pa.float64()),
        ("value", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("status", pa.string()),
    ]
)


def _schema_names(path: Path) -> list[str]:
    names: list[str] = _tables.describe(path).column("column").to_pylist()
    return names


def _first(values: list[str], rows: list[dict[str, Any]]) -> str:
    """The first column in which a row has a number."""
    return next((value for value in values if any(row[value] is not None for row in rows)), values[0])
