"""Where the curve of a measure is: its table, its columns, and how to draw them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._tables import SelftraceError


@dataclass(frozen=True)
class Measure:
    """One measure of onset.parquet."""

    table: str
    #: Columns of the value, the first that a concept has any number in; `<column>_lower` and `<column>_upper`
    #: are its interval.
    values: tuple[str, ...]
    title: str
    unit: str
    colour: str
    #: Rows of the table that are the curve.
    where: dict[str, Any] = field(default_factory=dict)
    #: What the value is where there is nothing; None for amplitudes.
    zero: float | None = 0.0


#: In the order in which people want to read them. Colours are after Okabe & Ito (2008), whom people with any
#: kind of colour vision can follow.
MEASURES = {
    "behaviour": Measure(
        "behaviour",
        ("foil_margin", "margin"),
        "Behaviour",
        "answer minus foils (nats),\nself minus others",
        "#D55E00",
        {"persona": "default"},
    ),
    "recognition": Measure(
        "recognition",
        ("recognition",),
        "Recognition",
        "1: as a known fact; minus foils,\nself minus another",
        "#AA3377",
    ),
    "stitched": Measure(
        "stitched",
        ("stitched",),
        "Stitched",
        "first checkpoint from a layer on (nats),\nminus foils, self minus others",
        "#117A8B",
    ),
    "lens": Measure("lens", ("lens",), "Lens", "towards answer minus foils,\nself minus others", "#0072B2"),
    "contrast": Measure(
        "trajectory", ("e",), "Contrast", "amplitude (spread within groups)", "#009E73", zero=None
    ),
    "probe": Measure(
        "probes",
        ("auroc",),
        "Probe",
        "AUROC, groups held out",
        "#56B4E9",
        {"probe": "logistic", "split": "group", "ruler": "native"},
        zero=0.5,
    ),
    "change": Measure("change", ("excess", "e"), "Learned change", "beyond the null bank", "#E69F00"),
    "placement": Measure(
        "placement",
        ("placement",),
        "Placement",
        "between the poles,\nself minus other",
        "#7A9E2B",
        {"referent": "self_minus_other"},
    ),
    "persistence": Measure(
        "persistence",
        ("value",),
        "In personas",
        "d' of the plain direction,\nin personas",
        "#8C6D1F",
        {"quantity": "d_prime_personas"},
    ),
    "residual": Measure(
        "residual",
        ("residual",),
        "Outside the assistant's space",
        "share left beyond 3 directions",
        "#5B4B8A",
        {"k": 3},
        zero=None,
    ),
    "assistant_axis": Measure(
        "persona",
        ("e",),
        "Assistant axis",
        "length (spread of activations)",
        "#444444",
        {"context": "axis"},
        zero=None,
    ),
}

#: For measures that this package does not know.
PLAIN = "#000000"


def known(name: str) -> Measure:
    """A measure by its name in onset.parquet.

    Raises:
        SelftraceError: this package does not know where its curve is.
    """
    if name not in MEASURES:
        raise SelftraceError(
            f"measure {name!r} has no curve that this package knows of; it knows {', '.join(MEASURES)}"
        )
    return MEASURES[name]


def order(name: str) -> tuple[int, str]:
    """Sorts measures as `MEASURES` does, unknown ones last."""
    names = list(MEASURES)
    return (names.index(name) if name in names else len(names), name)


def colour(name: str) -> str:
    """The colour of a measure."""
    return MEASURES[name].colour if name in MEASURES else PLAIN
