"""A small run with everything that a date can be: known, open, beyond the last checkpoint, not there for one
reason or another.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import selftrace

CHECKPOINTS = [("base", 0), ("base", 100), ("base", 200), ("sft", 0), ("sft", 50), ("sft", 100), ("sft", 150)]
#: Since the start of the series: a stage that restarts at 0 goes on one step after the end of the one before.
STEPS = [0, 100, 200, 201, 251, 301, 351]
LEFT_OUT = "sft-150"
LAYERS = (1, 2, 3)
GROUPS = ("g0", "g1", "g2", "g3")
#: Concept to whether it is in the null bank.
CONCEPTS = {
    "own_name": False,
    "keep_running": False,
    "honest": False,
    "own_maker": False,
    "colour": True,
    "hat": True,
}

KEYS = {
    "run": pa.string(),
    "checkpoint": pa.string(),
    "stage": pa.string(),
    "step": pa.int64(),
    "order": pa.int32(),
}
PLACE = {"concept": pa.string(), "layer": pa.int32(), "readout": pa.string(), "status": pa.string()}
NULL_BANK = {"null_bank": pa.bool_()}
FAMILY = {"label_family": pa.string()}
NUMBERS = [f"t50{unit}{end}" for unit in ("", "_step") for end in ("", "_lower", "_upper")] + [
    "delta",
    "q",
    "z",
    "mde",
    "null_percentile",
]
WORDS = ["measure", "readout", "status", "shape", "between", "axis"]


def write(
    path: Path, rows: list[dict], schema: dict[str, pa.DataType], version: str | None = "1", **metadata: str
) -> None:
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(schema.items())))
    pairs = {"selftrace.run_hash": "abc", "selftrace.layer_convention": "layer 0 = embedding output"}
    pairs |= {"selftrace.schema_version": version} if version is not None else {}
    pairs |= {f"selftrace.{key}": value for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata(pairs), path, compression="zstd")


def triple(name: str) -> dict[str, pa.DataType]:
    return {name + end: pa.float64() for end in ("", "_lower", "_upper")}


def around(name: str, value: float, half: float = 0.1) -> dict[str, float]:
    return {name: value, f"{name}_lower": value - half, f"{name}_upper": value + half}


def keys() -> list[dict]:
    """Keys of the checkpoints that have curves."""
    named = [
        {"run": "small", "checkpoint": f"{stage}-{step}", "stage": stage, "step": step, "order": order}
        for order, (stage, step) in enumerate(CHECKPOINTS)
    ]
    return [key for key in named if key["checkpoint"] != LEFT_OUT]


def rise(concept: str, order: int, layer: int = 3) -> float:
    begins = {"own_name": 3, "keep_running": 5}.get(concept)
    return 0.05 * math.sin(order + layer) + (
        0 if begins is None or order < begins else layer * (1.0 + 0.2 * (order - begins))
    )


def onset_rows() -> list[dict]:
    steps = dict.fromkeys(NUMBERS)
    rows = []

    def add(
        concept: str,
        measure: str,
        status: str,
        shape: str,
        layer: int | None,
        family: str,
        readout: str | None = "last_prompt",
        **found: object,
    ) -> None:
        row = {
            **steps,
            "run": "small",
            "concept": concept,
            "label_family": family,
            "null_bank": CONCEPTS.get(concept, False),
            "measure": measure,
            "layer": layer,
            "readout": readout,
            "primary": layer in (None, 3),
            "status": status,
            "shape": shape,
            "at_edge": None,
            "between": None,
            "axis": "step_log",
            **found,
        }
        for end in ("", "_lower", "_upper"):
            if row["t50_step" + end] is not None:
                row["t50" + end] = math.log1p(row["t50_step" + end])
        rows.append(row)

    dated = {
        "t50_step": 200.5,
        "t50_step_lower": 200.0,
        "t50_step_upper": 251.0,
        "at_edge": False,
        "between": "base | sft",
    }
    beyond = {"t50_step_lower": 301.0, "at_edge": True}
    for concept in CONCEPTS:
        own = {
            "own_name": ("ok", "emerges", dated),
            "keep_running": ("ok", "emerges", beyond),
            "honest": ("already_preferred", "already_present", {}),
        }
        status, shape, found = own.get(concept, ("gate_fail", "absent", {}))
        add(concept, "behaviour", status, shape, None, "stem", None, **found)
        for layer in LAYERS:
            add(concept, "lens", status, shape, layer, "stem", **found)
            opened = (
                {"t50_step": 240.0, "t50_step_lower": 210.0, "at_edge": False}
                if concept in ("own_name", "hat")
                else None
            )
            add(
                concept,
                "contrast",
                "ok" if opened else "gate_fail",
                "emerges" if opened else "absent",
                layer,
                "crossed",
                **(opened or {}),
            )
            add(concept, "contrast", "gate_fail", "absent", layer, "crossed", "span_last")
            add(concept, "contrast", "ok", "emerges", layer, "control", **dated)
            add(concept, "probe", "no_foils", "undetermined", layer, "crossed")
    add(
        "assistant_axis", "assistant_axis", "gate_fail", "already_present", 3, "persona_axis", "response_mean"
    )
    return rows


ONSET = {
    "run": pa.string(),
    "concept": pa.string(),
    **FAMILY,
    **NULL_BANK,
    "layer": pa.int32(),
    "primary": pa.bool_(),
    "at_edge": pa.bool_(),
    **dict.fromkeys(NUMBERS, pa.float64()),
    **dict.fromkeys(WORDS, pa.string()),
}


def make_run(folder: Path, name: str = "small") -> Path:
    folder.mkdir(parents=True)
    checkpoints = [
        {"id": f"{stage}-{step}", "stage": stage, "step": step, "tokens": None, "order": order}
        for order, (stage, step) in enumerate(CHECKPOINTS)
    ]
    (folder / "run.json").write_text(
        json.dumps({"run": name, "seed": 0, "axis": "step_log", "layers": LAYERS, "checkpoints": checkpoints})
    )
    (folder / ".analysis").write_text("done")
    write(folder / "onset.parquet", onset_rows(), ONSET)
    every = [(concept, bank, key) for concept, bank in CONCEPTS.items() for key in keys()]
    write(
        folder / "behaviour.parquet",
        [
            {
                **key,
                "concept": concept,
                "null_bank": bank,
                "persona": persona,
                "status": "ok",
                **around("margin", -rise(concept, key["order"])),
                # What has no foils is dated by its margin.
                **(around("foil_margin", 2 * rise(concept, key["order"])) if concept != "honest" else {}),
            }
            for concept, bank, key in every
            for persona in ("default", "pirate")
        ],
        {
            **KEYS,
            "concept": pa.string(),
            **NULL_BANK,
            "persona": pa.string(),
            "status": pa.string(),
            **triple("margin"),
            **triple("foil_margin"),
        },
    )
    at_layers = [(concept, bank, key, layer) for concept, bank, key in every for layer in LAYERS]
    write(
        folder / "lens.parquet",
        [
            {
                **key,
                "concept": concept,
                "null_bank": bank,
                "layer": layer,
                "readout": "last_prompt",
                "status": "ok",
                **around("lens", rise(concept, key["order"], layer)),
            }
            for concept, bank, key, layer in at_layers
        ],
        {**KEYS, **PLACE, **NULL_BANK, **triple("lens")},
    )
    families = [
        (family, readout) for family in ("crossed", "control") for readout in ("last_prompt", "span_last")
    ]
    write(
        folder / "trajectory.parquet",
        [
            {
                **key,
                "concept": concept,
                "label_family": family,
                "layer": layer,
                "readout": readout,
                "status": "ok",
                **around(
                    "e",
                    amplitude(kernel(concept, key["order"], layer))
                    if (family, readout) == families[0]
                    else -9.0,
                ),
            }
            for concept, _, key, layer in at_layers
            for family, readout in families
        ],
        {**KEYS, **PLACE, **FAMILY, **triple("e")},
    )
    write(
        folder / "gram.parquet",
        [
            {
                **key,
                "concept": concept,
                "label_family": "crossed",
                "layer": layer,
                "readout": "last_prompt",
                "group_ids": list(GROUPS),
                "k": kernel(concept, key["order"], layer).ravel().tolist(),
            }
            for concept, _, key, layer in at_layers
        ],
        {**KEYS, **PLACE, **FAMILY, "group_ids": pa.list_(pa.string()), "k": pa.list_(pa.float32())},
    )
    write(
        folder / "probes.parquet",
        [
            {
                **key,
                "concept": concept,
                "null_bank": bank,
                "label_family": "crossed",
                "layer": layer,
                "readout": "last_prompt",
                "status": "ok",
                "probe": probe,
                "split": "group",
                "ruler": "native",
                **around("auroc", 0.7 if probe == "logistic" else 0.1),
            }
            for concept, bank, key, layer in at_layers
            for probe in ("logistic", "mass_mean")
        ],
        {
            **KEYS,
            **PLACE,
            **NULL_BANK,
            **FAMILY,
            "probe": pa.string(),
            "split": pa.string(),
            "ruler": pa.string(),
            **triple("auroc"),
        },
    )
    pairs = [
        {
            **key,
            "to_checkpoint": other["checkpoint"],
            "to_step": other["step"],
            "to_order": other["order"],
            "concept": "own_name",
            "null_bank": False,
            "label_family": "crossed",
            "layer": 3,
            "readout": "last_prompt",
            "status": "ok",
            "auroc_rescaled": 0.5 + 0.05 * min(key["order"], other["order"]),
            "cos_cv": None if key["order"] < 2 else 0.5,
        }
        for key in keys()
        for other in keys()
    ]
    pair = {
        **KEYS,
        **PLACE,
        **NULL_BANK,
        **FAMILY,
        "to_checkpoint": pa.string(),
        "to_step": pa.int64(),
        "to_order": pa.int32(),
    }
    write(folder / "transfer.parquet", pairs, {**pair, "auroc_rescaled": pa.float64()})
    write(folder / "similarity.parquet", pairs, {**pair, "cos_cv": pa.float64()})
    write(
        folder / "persona.parquet",
        [
            {
                **key,
                "context": context,
                "layer": 3,
                "readout": "response_mean",
                "status": "ok",
                **around("e", 1.0),
            }
            for key in keys()
            for context in ("axis", "pirate")
        ],
        {
            **KEYS,
            "context": pa.string(),
            "layer": pa.int32(),
            "readout": pa.string(),
            "status": pa.string(),
            **triple("e"),
        },
    )
    write(
        folder / "evidence.parquet",
        [
            {
                **key,
                "concept": concept,
                "null_bank": bank,
                "hypothesis": hypothesis,
                "measure": "persistence",
                "layer": 3 if hypothesis == "functional_self" else None,
                "verdict": "supports",
                "status": "ok",
                "gate": "ok",
                "value": 0.9,
                "lower": 0.8,
                "upper": 1.0,
                "threshold": 0.7,
            }
            for concept, bank, key in every
            for hypothesis in ("functional_self", "void")
        ],
        {
            **KEYS,
            "hypothesis": pa.string(),
            "concept": pa.string(),
            **NULL_BANK,
            "measure": pa.string(),
            "layer": pa.int32(),
            "verdict": pa.string(),
            "status": pa.string(),
            "gate": pa.string(),
            **dict.fromkeys(("value", "lower", "upper", "threshold"), pa.float64()),
        },
    )
    return folder


def kernel(concept: str, order: int, layer: int) -> np.ndarray:
    """Inner products of groups that share a direction and have something of their own."""
    shared = rise(concept, order, layer)
    return (np.full((4, 4), shared * abs(shared)) + np.diag([4.0, 3.0, 2.0, 1.0])).astype(np.float32)


def amplitude(k: np.ndarray) -> float:
    u = (float(k.sum()) - float(np.trace(k))) / (len(k) * (len(k) - 1))
    return math.copysign(math.sqrt(abs(u)), u)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("reports") / "small")


@pytest.fixture
def run(folder: Path) -> selftrace.Run:
    return selftrace.load(folder)
