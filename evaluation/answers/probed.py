"""What a probe saw: `probe.csv`, a row for each prompt of a target and each condition, beside the pictures"""

from pathlib import Path
from typing import NamedTuple

from evaluation.answers.blocks import Table
from evaluation.answers.predictions import Prediction, prediction_of
from evaluation.canvas import answer_name
from evaluation.probes.prompted import PLAIN

PROBE = "probe.csv"


class Probed(NamedTuple):
    """A picture of a prompt under a condition."""

    target: str
    condition: str
    shown: bool  # whether the target is recognised in it
    seen: Prediction

    @property
    def prompt(self) -> tuple[str, tuple]:
        """The target and the cell."""
        return self.target, self.seen[:3]

    @property
    def verdicts(self) -> list[tuple[bool, Prediction]]:
        """Whether the target is recognised, and in what."""
        return [(self.shown, self.seen)]


def picture_path(folder: Path, target, several: bool, cell, condition: str, suffix: str) -> Path:
    """Where a cell's picture under a condition lies, in the table's folder. A prompt may be asked for two of
    `several` targets, so each has a folder of its own then."""
    name = "" if condition == PLAIN else f"_{condition.replace(' ', '_')}"
    return (folder / str(target) if several else folder) / answer_name(*cell, f"{name}{suffix}")


COLUMNS = [*Probed._fields[:-1], *Prediction._fields]


def values_of(row: Probed) -> list[str]:
    """The row as it is written: truths as 0 and 1, probabilities with six digits."""
    values = (row.target, row.condition, int(row.shown), *row.seen)
    return [f"{value:.6f}" if isinstance(value, float) else str(value) for value in values]


def row_of(values: list[str]) -> Probed:
    """The row that was written so; raises ValueError."""
    target, condition, shown, *seen = values
    return Probed(target, condition, bool(["0", "1"].index(shown)), prediction_of(seen))


TABLE = Table(PROBE, COLUMNS, values_of, row_of, "probe")
