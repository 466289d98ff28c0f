"""Reads and draws the tables of selftrace runs.

import selftrace
run = selftrace.load("reports/demo")
run.dates()
run.plot_onsets().savefig("onsets.png")
"""

from ._comparison import compare
from ._run import Gram, Run, load
from ._tables import SCHEMA_VERSIONS, SelftraceError
from ._words import SHAPES, STATUSES, date_in_words

__version__ = "0.1.0"
__all__ = [
    "SCHEMA_VERSIONS",
    "SHAPES",
    "STATUSES",
    "Gram",
    "Run",
    "SelftraceError",
    "compare",
    "date_in_words",
    "load",
]
