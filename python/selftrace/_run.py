"""A run: its folder, its checkpoints, and questions to its tables."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import _comparison, _measures, _tables
from ._curves import Layer, as_list, find_places, one_readout, read_curves
from ._tables import Engine, SelftraceError, Where
from ._timeline import Timeline, timeline
from ._words import date_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Label families that are controls: they have onsets, and are no findings.
CONTROLS = ("control", "frame")


def load(run: str | Path, *, engine: Engine = "pandas") -> Run:
    """Opens the folder of a run, `reports/<name>`. Tables are read when they are asked for.

    Args:
        run: the folder.
        engine: what frames are made of: `"pandas"`, `"polars"` or `"duckdb"`.

    Raises:
        SelftraceError: the folder is not a run's.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise SelftraceError(f"{folder}: no such folder; a run is a folder like reports/demo")
    if not (folder / "run.json").exists():
        if (folder / "compare.parquet").exists():
            raise SelftraceError(
                f"{folder}: a comparison of runs; read it with selftrace.compare({str(folder)!r})"
            )
        raise SelftraceError(f"{folder}: not a run, it has no run.json")
    try:
        config = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        name = config["run"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise SelftraceError(
            f"{folder / 'run.json'}: cannot be read as a run ({type(error).__name__}: {error})"
        ) from None
    if (folder / "onset.parquet").exists() and not (folder / ".analysis").exists():
        warnings.warn(
            f"{folder}: the last analysis did not finish, so tables may be of two analyses; "
            "run `selftrace analyze` (or the folder was copied without its file .analysis)",
            stacklevel=2,
        )
    return Run(folder, name, config, _tables.known_engine(engine))


@dataclass(frozen=True)
class Gram:
    """Kernels of a concept's groups along the series.

    With `k = kernel[t]` and G groups, `u = (k.sum() - trace(k)) / (G (G - 1))` is unbiased for the squared
    length of the contrast, and `e = sign(u) sqrt(|u|)` is the amplitude in trajectory.parquet.
    """

    concept: str
    label_family: str
    layer: int
    readout: str
    #: Ids of checkpoints `[T]` and groups `[G]`.
    checkpoints: tuple[str, ...]
    groups: tuple[str, ...]
    #: `[T, G, G]` in f32.
    kernel: np.ndarray


@dataclass(frozen=True)
class Run:
    """A run's folder. Made by `load`."""

    folder: Path
    name: str
    #: What is in run.json: seed, axis, layers, checkpoints, the resolved manifest, versions and hashes.
    config: dict[str, Any]
    engine: Engine = "pandas"

    def __repr__(self) -> str:
        line = self.timeline
        stages = ", ".join(f"{stage} {last - first + 1}" for stage, first, last in line.stage_spans())
        tables = ", ".join(self.tables) or "none yet"
        return f"<selftrace run {self.name!r}: {len(line.ids)} checkpoints ({stages}), tables {tables}>"

    @property
    def tables(self) -> list[str]:
        """Names of the tables that are there."""
        return [path.stem for path in sorted(self.folder.glob("*.parquet"))]

    def table(self, name: str, columns: Iterable[str] | None = None, where: Where | None = None) -> Any:
        """A table as a frame of the engine: `run.table("lens", where={"concept": "own_name", "layer": 4})`.

        Args:
            name: as in `tables`.
            columns: all, if not given.
            where: column to the value that it has to have, None for null, or a list of values of which it has
                to have one.
        """
        return self._hand_over(self._read(name, columns, where))

    def metadata(self, name: str) -> dict[str, str]:
        """What a table says of itself: `schema_version`, `run_hash`, `layer_convention`."""
        return _tables.metadata(self._path(name))

    def describe(self, name: str) -> Any:
        """The columns of a table: `column`, `type`, and `unit` and `doc` where the table has them."""
        return self._hand_over(_tables.describe(self._path(name)))

    @cached_property
    def timeline(self) -> Timeline:
        """The checkpoints that curves cover: those of the run without what failed or was left out by the
        integrity audit.
        """
        checkpoints = self.config.get("checkpoints", [])
        for name in ("trajectory", "change", "behaviour", "lens", "probes"):
            if self._path(name).exists():
                covered = set(self._read(name, ["checkpoint"]).column("checkpoint").unique().to_pylist())
                if covered:
                    checkpoints = [checkpoint for checkpoint in checkpoints if checkpoint["id"] in covered]
                    break
        return timeline(self.config.get("axis", "index"), checkpoints)

    @cached_property
    def lessons(self) -> dict[str, float]:
        """Where training is known to begin teaching a concept, in steps: of `selftrace demo` alone, which
        keeps its curriculum.
        """
        path = self.folder / "series" / "curriculum.json"
        taught = json.loads(path.read_text(encoding="utf-8"))["taught_at"] if path.exists() else []
        return {concept: float(step) for concept, step in taught if step}

    def onset(
        self,
        concept: str | Iterable[str] | None = None,
        measure: str | Iterable[str] | None = None,
        *,
        primary: bool = True,
        null_bank: bool = False,
        controls: bool = False,
    ) -> Any:
        """Rows of onset.parquet: whether, when and in what shape concepts appear.

        Only rows whose status is `ok` have a date. It is missing where it lies beyond the checkpoints
        (`at_edge`): the end of the interval that is there is then a bound; an end that is missing by itself
        is open. `q` is adjusted over all primary rows of the run.

        Args:
            concept, measure: one or several; all, if not given.
            primary: only the layer that was chosen for each concept, measure and readout.
            null_bank: with the topics that nobody teaches.
            controls: with the label families `control` and `frame`, which are no findings.
        """
        return self._hand_over(self._onset(concept, measure, primary, null_bank, controls))

    def dates(self, *, null_bank: bool = False) -> Any:
        """One row per concept, one column per measure, each cell a date in words: "589 [588, 592]",
        "after 960", "absent", or why there is none.

        Dates are in steps since the start of the series, or in units of the run's axis where checkpoints have
        no steps. At several readouts it is the last prompt token's, as in `curves`.
        """
        rows = one_readout(self._onset(None, None, True, null_bank, False).to_pylist())
        measures = sorted({row["measure"] for row in rows}, key=_measures.order)
        cells: dict[str, dict[str, str]] = {}
        for row in rows:
            cells.setdefault(row["concept"], {})[row["measure"]] = date_in_words(row)
        columns: dict[str, list[str]] = {"concept": sorted(cells)}
        columns |= {
            measure: [cells[concept].get(measure, "not measured") for concept in sorted(cells)]
            for measure in measures
        }
        return self._hand_over(
            pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        )

    def curves(
        self,
        concept: str | Iterable[str] | None,
        measure: str,
        *,
        layer: Layer = "primary",
        readout: str | None = None,
        null_bank: bool = True,
    ) -> Any:
        """The curve of a measure: `value`, `lower`, `upper` and `status`, in the order of training.

        Whichever table and column it is in: `value` is what is dated, except for `residual`, where it is the
        share that is left, and for `contrast` and `residual` also in that a direction that does not turn is
        dated along its final direction. `steps` are steps since the start of the series, in which dates are;
        `step` is the checkpoint's own.

        Args:
            concept: one or several; all, if None.
            measure: as in onset.parquet.
            layer: a number; each concept's primary one; or all.
            readout: by default the last prompt token, or the first that there is.
            null_bank: whether None stands for the topics that nobody teaches, too.
        """
        return self._hand_over(read_curves(self, concept, measure, layer, readout, null_bank))

    def gram(self, concept: str, *, layer: int | None = None, readout: str | None = None) -> Gram:
        """Kernels of a concept, by default at the primary layer of its contrast."""
        place = find_places(self, [concept], "contrast", "primary" if layer is None else layer, readout)[0]
        where = {key: place[key] for key in ("concept", "label_family", "layer", "readout")}
        rows = (
            self._read("gram", ["checkpoint", "order", "group_ids", "k"], where).sort_by("order").to_pylist()
        )
        if not rows:
            raise SelftraceError(
                f"{self._path('gram')}: nothing about {concept!r} at layer {where['layer']}, "
                f"{where['readout']}"
            )
        groups = tuple(rows[0]["group_ids"])
        if any(tuple(row["group_ids"]) != groups for row in rows):
            raise SelftraceError(
                f"{self._path('gram')}: {concept!r} has other groups at other checkpoints; read them with "
                "table('gram')"
            )
        kernel = np.array([row["k"] for row in rows], dtype=np.float32).reshape(
            len(rows), len(groups), len(groups)
        )
        return Gram(
            **where, checkpoints=tuple(row["checkpoint"] for row in rows), groups=groups, kernel=kernel
        )

    def evidence(
        self,
        concept: str | Iterable[str] | None = None,
        hypothesis: str | Iterable[str] | None = None,
        *,
        checkpoint: str | None = "last",
        null_bank: bool = False,
    ) -> Any:
        """Rows of evidence.parquet: each part of a hypothesis supports it, opposes it or is inconclusive.

        Args:
            concept, hypothesis: one or several; all, if not given.
            checkpoint: an id, `"last"`, or None for all.
            null_bank: with the topics that nobody teaches.
        """
        where: dict[str, Any] = {} if null_bank else {"null_bank": False}
        where |= {"concept": as_list(concept)} if concept is not None else {}
        where |= {"hypothesis": as_list(hypothesis)} if hypothesis is not None else {}
        table = self._read("evidence", None, where)
        self._require(table, "evidence", concept=concept, hypothesis=hypothesis)
        if checkpoint == "last" and table.num_rows:
            table = table.filter(pc.equal(table["order"], pc.max(table["order"])))
        elif checkpoint not in ("last", None):
            if checkpoint not in self.timeline.ids:
                raise SelftraceError(
                    f"{self.folder}: no checkpoint {checkpoint!r}; it has {', '.join(self.timeline.ids)}"
                )
            table = table.filter(pc.equal(table["checkpoint"], checkpoint))
        return self._hand_over(table)

    def compare(self, other: str | Path | Run, **options: Any) -> Any:
        """Rows of the comparison with another run, which `selftrace compare` has written beside this one; see
        `selftrace.compare`.
        """
        folder = other.folder if isinstance(other, Run) else other
        return _comparison.compare(self.folder, folder, engine=self.engine, **options)

    def plot_onsets(self, measures: str | Iterable[str] | None = None, **options: Any) -> Figure:
        """Forest plot: when each concept appears by each measure, with interval, on the run's axis with its
        stages; null bank grey.

        Options: `concepts`, `readouts="one" | "all"`.
        """
        from ._plot_onsets import plot_onsets

        return plot_onsets(self, measures, **options)

    def plot_curves(
        self, concepts: str | Iterable[str], measures: str | Iterable[str] | None = None, **options: Any
    ) -> Figure:
        """Curves of one or several concepts with intervals and dates, a panel per measure; null bank grey.

        Options: `layer` and `readout`, as for `curves`.
        """
        from ._plot_curves import plot_curves

        return plot_curves(self, concepts, measures, **options)

    def plot_layers(self, concept: str, measure: str = "contrast", **options: Any) -> Figure:
        """Heat map of a measure, layer by checkpoint. Option: `readout`."""
        from ._plot_maps import plot_layers

        return plot_layers(self, concept, measure, **options)

    def plot_transfer(self, concept: str, **options: Any) -> Figure:
        """Probes fitted at one checkpoint and tested at another, and cosines of directions. Options: `layer`,
        `readout`.
        """
        from ._plot_maps import plot_transfer

        return plot_transfer(self, concept, **options)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _read(self, name: str, columns: Iterable[str] | None = None, where: Where | None = None) -> pa.Table:
        return _tables.read(self._path(name), columns, where)

    def _hand_over(self, table: pa.Table) -> Any:
        return _tables.hand_over(table, self.engine)

    def _require(self, table: pa.Table, source: str, **asked: str | Iterable[str] | None) -> None:
        """Refuses a name that a table does not have, and names that have no row together in `table`."""
        named = {column: as_list(names) for column, names in asked.items() if names is not None}
        for column, names in named.items():
            known = set(self._read(source, [column])[column].to_pylist())
            for name in names:
                if name not in known:
                    raise SelftraceError(
                        f"{self._path(source)}: no {column} {name!r}; it has "
                        f"{', '.join(sorted(known)) or 'no rows'}"
                    )
        if named and not table.num_rows:
            what = ", ".join(f"{column} {' or '.join(map(repr, names))}" for column, names in named.items())
            raise SelftraceError(f"{self._path(source)}: no row of {what}")

    def _onset(
        self,
        concept: str | Iterable[str] | None,
        measure: str | Iterable[str] | None,
        primary: bool,
        null_bank: bool,
        controls: bool,
    ) -> pa.Table:
        # A topic of the null bank that is asked for by its name is meant.
        null_bank = null_bank or concept is not None
        where: dict[str, Any] = {}
        where |= {"primary": True} if primary else {}
        where |= {"null_bank": False} if not null_bank else {}
        where |= {"concept": as_list(concept)} if concept is not None else {}
        where |= {"measure": as_list(measure)} if measure is not None else {}
        table = self._read("onset", None, where)
        self._require(table, "onset", concept=concept, measure=measure)
        if controls:
            return table
        return table.filter(pc.invert(pc.is_in(table["label_family"], pa.array(CONTROLS))))
