"""Parquet files on one side, frames of three engines on the other; everything between is Arrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd

#: Versions of the tables' schemas that this package reads.
SCHEMA_VERSIONS = ("1",)

#: What frames are made of: `pandas.DataFrame`, `polars.DataFrame` or `duckdb.DuckDBPyRelation`.
Engine = Literal["pandas", "polars", "duckdb"]

#: Column to the value that it has to have, or to several of which it has to have one.
Where = Mapping[str, Any]

#: Tables of an analysis, and what in the manifest gives them rows.
_ANALYSIS = (
    "onset trajectory gram similarity cluster probes transfer change lens recognition placement behaviour "
    "agreement prediction endogenous leadlag lexical_audit evidence"
)
_NEEDS = {
    **dict.fromkeys(_ANALYSIS.split(), ""),
    **dict.fromkeys(("persona", "persistence", "residual"), "(its rows need [personas] in the manifest)"),
    "causal": "(its rows need [causal] in the manifest)",
    "stitched": "(its rows need [stitching] in the manifest)",
    "introspection": "(its rows need [introspection] in the manifest)",
    "context": "(its rows need [context] in the manifest)",
    "replay": "(its rows need [replay] in the manifest)",
    "conversation": "(its rows need [conversation] in the manifest)",
    "transcripts": "(its rows need [conversation] in the manifest)",
    **dict.fromkeys(("dictionary", "latents", "latent_onset", "latent_self"), "(its rows need [dictionary] in the manifest)"),
}


class SelftraceError(Exception):
    """Something that the caller can put right, in one sentence."""


def known_engine(engine: str) -> Engine:
    """`engine`, if it is one.

    Raises:
        SelftraceError: it is none.
    """
    if engine not in get_args(Engine):
        raise SelftraceError(f"engine {engine!r} is none of {', '.join(get_args(Engine))}")
    return engine  # type: ignore[return-value]


def read(path: Path, columns: Iterable[str] | None = None, where: Where | None = None) -> pa.Table:
    """Rows and columns of one table, dictionaries as plain strings.

    Only what is asked for is read from the file.

    Raises:
        SelftraceError: the file is missing, no table of selftrace, or of a version that is not in
        `SCHEMA_VERSIONS`; or a column is missing.
    """
    file = _open(path)
    with file:
        names = file.schema_arrow.names
        chosen = list(columns) if columns is not None else names
        for column in [*chosen, *(where or {})]:
            if column not in names:
                raise SelftraceError(f"{path}: no column {column!r}; its columns are {', '.join(names)}")
        needed = list(dict.fromkeys([*chosen, *(where or {})]))
        table = (
            file.read(columns=needed)
            if not where
            else pq.read_table(path, columns=needed, filters=_expression(where), partitioning=None)
        )
    table = table.select(chosen)
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(field.type.value_type))
    return table.replace_schema_metadata(None)


def _open(path: Path) -> pq.ParquetFile:
    if not path.exists():
        raise SelftraceError(_missing(path))
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        detail = str(error).splitlines()[0].rstrip(".")
        raise SelftraceError(
            f"{path}: cannot be read as Parquet ({detail}); `selftrace analyze` writes it again"
        ) from None
    version = (file.metadata.metadata or {}).get(b"selftrace.schema_version")
    # Items may come from other tools, which know nothing of versions.
    if version is None and path.name != "items.parquet":
        file.close()
        raise SelftraceError(
            f"{path}: not a table of selftrace, its metadata have no selftrace.schema_version"
        )
    if version is not None and version.decode() not in SCHEMA_VERSIONS:
        file.close()
        raise SelftraceError(
            f"{path}: schema version {version.decode()}, and this package reads "
            f"{' and '.join(SCHEMA_VERSIONS)}; "
            "install the package from the sources of the selftrace that wrote the table"
        )
    return file


def _missing(path: Path) -> str:
    folder, name = path.parent, path.stem
    if not folder.is_dir():
        return f"{folder}: no such folder"
    there = [file.stem for file in sorted(folder.glob("*.parquet"))]
    if not there:
        return f"{folder}: no tables; `selftrace analyze` writes them"
    if name in _NEEDS:
        return f"{folder}: no {path.name}; `selftrace analyze` writes it {_NEEDS[name]}".rstrip()
    return f"{folder}: no table {name!r}; it has {', '.join(there)}"


def _expression(where: Where) -> pc.Expression:
    expression = None
    for column, value in where.items():
        field = pc.field(column)
        if value is None:
            one = field.is_null()
        elif isinstance(value, (list, tuple, set, frozenset)):
            one = field.isin(list(value))
        else:
            one = field == value
        expression = one if expression is None else expression & one
    assert expression is not None
    return expression


def metadata(path: Path) -> dict[str, str]:
    """What a table says of itself: `schema_version`, `run_hash`, `layer_convention`."""
    with _open(path) as file:
        pairs = (file.metadata.metadata or {}).items()
        return {
            k.decode().removeprefix("selftrace."): v.decode() for k, v in pairs if k.startswith(b"selftrace.")
        }


def describe(path: Path) -> pa.Table:
    """One row per column: `column`, `type`, `unit`, `doc`; the last two from the metadata key
    `selftrace.columns`, a JSON object `{column: {"unit": ..., "doc": ...}}`, and null where the table has
    none."""
    docs = json.loads(metadata(path).get("columns", "{}"))
    with _open(path) as file:
        schema = file.schema_arrow
    plain = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema]
    return pa.table(
        {
            "column": pa.array(schema.names, pa.string()),
            "type": pa.array([str(kind) for kind in plain], pa.string()),
            "unit": pa.array([docs.get(name, {}).get("unit") for name in schema.names], pa.string()),
            "doc": pa.array([docs.get(name, {}).get("doc") for name in schema.names], pa.string()),
        }
    )


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A data frame in which integers and booleans stay what they are beside nulls."""
    import pandas as pd

    nullable: dict[pa.DataType, Any] = {
        pa.int8(): pd.Int8Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    return table.to_pandas(types_mapper=nullable.get)


def hand_over(table: pa.Table, engine: Engine) -> Any:
    """`table` as a frame of the engine.

    Raises:
        SelftraceError: the engine is not installed.
    """
    if engine == "pandas":
        return to_pandas(table)
    try:
        if engine == "polars":
            import polars

            return polars.from_arrow(table)
        import duckdb

        return duckdb.from_arrow(table)
    except ImportError:
        raise SelftraceError(f"engine {engine!r} is not installed: pip install {engine}") from None
