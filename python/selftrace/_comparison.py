"""The tables of `selftrace compare`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from . import _tables
from ._tables import Engine, SelftraceError


def compare(
    a: str | Path,
    b: str | Path | None = None,
    *,
    table: Literal["compare", "void"] = "compare",
    concept: str | Iterable[str] | None = None,
    measure: str | Iterable[str] | None = None,
    primary: bool = True,
    null_bank: bool = False,
    engine: Engine = "pandas",
) -> Any:
    """Which of two runs has a concept earlier, and which has more of it, from what `selftrace compare` has
    written.

    Differences are B minus A: a positive `shift` is a date that is earlier in A.

    Args:
        a, b: the runs' folders, whose comparison is `<A>-vs-<B>` beside the first; or the folder of a
            comparison alone.
        table: `"compare"`, or `"void"` for variances between the runs of an arm.
        concept, measure: one or several; all, if not given.
        primary: only the layer that was chosen for each concept, measure and readout.
        null_bank: with the topics that nobody teaches.
        engine: what frames are made of.

    Raises:
        SelftraceError: there is no such comparison.
    """
    engine = _tables.known_engine(engine)
    folder = Path(a)
    if b is not None:
        first, second = folder.resolve(), Path(b).resolve()
        folder = first.parent / f"{first.name}-vs-{second.name}"
        if not folder.is_dir() and (first.parent / f"{second.name}-vs-{first.name}").is_dir():
            raise SelftraceError(
                f"{folder}: no such comparison, but there is {second.name}-vs-{first.name}, whose "
                "differences have the other sign"
            )
    if not (folder / "compare.parquet").exists():
        how = f"`selftrace compare {a} {b}` makes it" if b is not None else "it has no compare.parquet"
        raise SelftraceError(f"{folder}: no such comparison; {how}")
    rows = _tables.read(folder / f"{table}.parquet")
    if table == "compare":
        if primary:
            rows = rows.filter(rows["primary"])
        rows = rows.filter(pc.invert(pc.is_in(rows["label_family"], pa.array(["control", "frame"]))))
    if not null_bank and concept is None:
        rows = rows.filter(pc.invert(rows["null_bank"]))
    for column, asked in (("concept", concept), ("measure", measure)):
        if asked is None:
            continue
        names = [asked] if isinstance(asked, str) else list(asked)
        known = set(rows[column].to_pylist())
        for name in names:
            if name not in known:
                raise SelftraceError(
                    f"{folder / table}.parquet: no {column} {name!r}; it has "
                    f"{', '.join(sorted(filter(None, known)))}"
                )
        rows = rows.filter(pc.is_in(rows[column], pa.array(names)))
    return _tables.hand_over(rows, engine)
