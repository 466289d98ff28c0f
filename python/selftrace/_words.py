"""What shapes, statuses and dates mean, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Values of `shape` in onset.parquet.
SHAPES = {
    "absent": "not shown to appear; `mde` says how much could hide",
    "already_present": "there from the start, and no stronger in the end",
    "emerges": "rises from nothing",
    "strengthens": "there from the start, and rises",
    "transient": "comes and goes",
    "vanishes": "there from the start, and goes",
    "reoriented": "there at both ends, in another direction",
    "undetermined": "no shape, see the status",
}

#: Values of `status` in all tables: `ok`, or why there is no number.
STATUSES = {
    "ok": "computed, and where it is a date, shown",
    "already_preferred": "stood out before, so a rise shows nothing",
    "before_onset": "earlier than the rise of the concept, so it supports nothing",
    "chance": "no more than chance",
    "degenerate_label": "one of the two labels is missing",
    "equal_runs": "the runs are the same to the last digit",
    "failed": "could not be computed",
    "foils_not_told_apart": "the measure cannot tell the foils apart",
    "gate_fail": "not shown: no rise beyond its error, what nobody teaches, and its baseline",
    "lexical_leak": "words alone give the label away",
    "mixed_answers": "groups have different answers",
    "needs_seeds": "takes several runs: `selftrace compare --a A1 A2 --b B1 B2`",
    "no_answers": "the concept has no answers to choose from",
    "no_axis": "there is no direction to measure along",
    "no_bank": "no null topics to hold it against",
    "no_date": "there is no date to compare",
    "no_direction": "there is no direction to push along",
    "no_effect": "there is no effect of which this could be a share",
    "no_explicit_date": "no concept with an explicit specification has a date",
    "no_foils": "nothing of its kind to hold it against",
    "no_interval": "too few resamples have a date for an interval",
    "no_null": "no random direction to hold it against",
    "no_order": "the order of the answers is not balanced",
    "no_reference": "no checkpoint marks the start",
    "no_rise": "has not risen, so there is no share of a rise",
    "no_unembedding": "the first checkpoint's unembedding was not kept",
    "not_late": "not a late checkpoint",
    "not_run": "what it takes was not asked for",
    "not_scored": "the answers were not scored",
    "side_effects": "every strength disturbs neutral text or facts, so none counts",
    "spec_explicit": "the specification speaks about it, so it says nothing about the void",
    "too_few_checkpoints": "fewer than six checkpoints have no shape or date",
    "too_few_concepts": "too few concepts",
    "too_few_differences": "too few items differ",
    "too_few_foils": "too few of its kind to hold it against",
    "too_few_groups": "too few groups of items",
    "too_few_personas": "too few personas",
    "too_large": "the model does not fit into memory as a whole, so it wrote nothing",
    "unclassified": "nothing says whether a specification speaks about it",
}


def meaning(status: str) -> str:
    """The status in words; one that this package does not know as it is."""
    return STATUSES.get(status, status.replace("_", " "))


def is_missing(value: Any) -> bool:
    """Null in any of the ways in which engines say so."""
    if value is None:
        return True
    try:
        return math.isnan(value)
    except TypeError:
        return type(value).__name__ == "NAType"


def number(value: float) -> str:
    """Four significant digits at most, no exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(row: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Date, lower and upper end of a row of onset.parquet: in steps since the start of the series where it
    has them, else in units of its axis.
    """
    in_steps = any(not is_missing(row[f"t50_step{end}"]) for end in ("", "_lower", "_upper"))
    name = "t50_step" if in_steps else "t50"
    date, lower, upper = (
        None if is_missing(row[name + end]) else float(row[name + end]) for end in ("", "_lower", "_upper")
    )
    return date, lower, upper


def date_in_words(row: Mapping[str, Any]) -> str:
    """A row of onset.parquet in a few words: "589 [588, 592]", "after 960", "absent", or the meaning of its
    status.

    An interval with an open end has "..." there; what lies beyond the checkpoints has a bound.
    """
    shape = str(row["shape"]).replace("_", " ")
    if row["status"] != "ok":
        shaped = row["status"] == "gate_fail" and row["shape"] != "undetermined"
        return shape if shaped else meaning(row["status"])
    date, lower, upper = span(row)
    if date is not None:
        ends = ["..." if end is None else number(end) for end in (lower, upper)]
        return f"{number(date)} [{ends[0]}, {ends[1]}]"
    if lower is not None and upper is not None:
        return f"between {number(lower)} and {number(upper)}"
    if lower is not None:
        return f"after {number(lower)}"
    if upper is not None:
        return f"before {number(upper)}"
    return f"{shape}, no date"
