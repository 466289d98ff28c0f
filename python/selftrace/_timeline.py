"""Where checkpoints stand on a run's axis; the same rules as in `src/series/axis.rs`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any


@dataclass(frozen=True)
class Timeline:
    """The checkpoints that curves cover, in order.

    `x` is in units of the axis, in which `t50` is; `steps` are steps since the start of the series, in which
    `t50_step` is, or None where a checkpoint has none. Stages restart their count of steps: `step` is the
    checkpoint's own, `steps` goes on where the stage before ended.
    """

    axis: str
    ids: tuple[str, ...]
    stages: tuple[str, ...]
    x: tuple[float, ...]
    steps: tuple[float, ...] | None

    @property
    def shown(self) -> tuple[float, ...]:
        """What plots have on their time axis: steps where there are some, else units of the axis."""
        return self.x if self.steps is None else self.steps

    @property
    def unit(self) -> str:
        """Label of `shown`."""
        if self.steps is not None:
            return "step"
        return {"tokens_log": "ln(1 + tokens)", "stage_progress": "stage", "index": "checkpoint"}.get(
            self.axis, self.axis
        )

    def stage_spans(self) -> list[tuple[str, int, int]]:
        """Stage, its first and its last checkpoint's position."""
        spans = []
        for stage, members in groupby(range(len(self.ids)), key=lambda at: self.stages[at]):
            positions = list(members)
            spans.append((stage, positions[0], positions[-1]))
        return spans

    def position(self, shown: float) -> float:
        """Fractional position among the checkpoints of a value in units of `shown`, clamped to the ends."""
        values = self.shown
        if shown <= values[0]:
            return 0.0
        for at in range(1, len(values)):
            if shown <= values[at]:
                return at - 1 + (shown - values[at - 1]) / (values[at] - values[at - 1])
        return len(values) - 1.0


def timeline(axis: str, checkpoints: Sequence[dict[str, Any]]) -> Timeline:
    """The timeline of checkpoints as `run.json` has them: `id`, `stage`, `step` and, where known,
    `tokens`.
    """
    stages = [checkpoint.get("stage", "") for checkpoint in checkpoints]
    steps = _continued(stages, [checkpoint.get("step") for checkpoint in checkpoints])
    tokens = _continued(stages, [checkpoint.get("tokens") for checkpoint in checkpoints])
    if axis == "step_log" and steps:
        x = [math.log1p(step) for step in steps]
    elif axis == "tokens_log" and tokens:
        x = [math.log1p(count) for count in tokens]
    elif axis == "stage_progress":
        x = _stage_progress(stages, [checkpoint.get("step") for checkpoint in checkpoints])
    else:
        x = [float(index) for index in range(len(stages))]
    ids = tuple(checkpoint["id"] for checkpoint in checkpoints)
    return Timeline(axis, ids, tuple(stages), tuple(x), tuple(steps) if steps else None)


def _continued(stages: list[str], counts: list[int | None]) -> list[float] | None:
    """Counts since the start of the series; a restart at 0 (the same weights again) counts as 1. None where
    one is missing.
    """
    total: list[float] = []
    offset = 0
    for at, count in enumerate(counts):
        if count is None:
            return None
        before = counts[at - 1] if at else None
        if before is not None and count <= before:
            offset += before + (count == 0)
        total.append(float(offset + count))
    return total


def _stage_progress(stages: list[str], steps: list[int | None]) -> list[float]:
    x: list[float] = []
    for number, (_, members) in enumerate(groupby(range(len(stages)), key=lambda at: stages[at])):
        own = [steps[at] for at in members]
        done = [1.0 + step for step in own if step is not None]
        if len(done) < len(own):
            done = [float(rank) for rank in range(1, len(own) + 1)]
        x.extend(number + share / done[-1] for share in done)
    return x
