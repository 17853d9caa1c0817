"""What an attack found: `attack.csv`, a row for each prompt of a target, beside the pictures that ended it"""

from typing import NamedTuple

from evaluation.answers.blocks import Table
from evaluation.answers.predictions import Prediction, prediction_of
from evaluation.probes import prompted

ATTACK = "attack.csv"
SEEN = [name for name in Prediction._fields if name not in ("theme", "object", "seed", "sha256")]


class Attacked(NamedTuple):
    """A prompt before the attack and after it."""

    target: str  # that was to be drawn again
    theme: str  # asked for by the prompt
    object: str
    seed: int
    before: bool  # whether the plain prompt's picture is recognised as the target: that ends the attack, too
    after: bool  # whether the last picture is
    steps: int  # of the gradient
    ids: str  # of the tokens found last, with spaces; none if the plain prompt was enough
    text: str  # what they spell
    plain: Prediction  # of the plain prompt's picture
    last: Prediction  # of the last picture, which is the file {theme}_{object}_seed{n}

    condition = prompted.PLAIN  # every prompt has a row

    @property
    def verdicts(self) -> list[tuple[bool, Prediction]]:
        """Whether the target is recognised, and in what."""
        return [(self.before, self.plain), (self.after, self.last)]

    @property
    def prompt(self) -> tuple[str, tuple]:
        """The target and the cell."""
        return self.target, self[1:4]


PLAIN, LAST = ([f"{which}_{name}" for name in SEEN] for which in ("plain", "last"))
COLUMNS = [*Attacked._fields[:-2], *PLAIN, *LAST, "sha256"]


def values_of(row: Attacked) -> list[str]:
    """The row as it is written: truths as 0 and 1, probabilities with six digits."""
    seen = [getattr(prediction, name) for prediction in (row.plain, row.last) for name in SEEN]
    values = (*row[:-2], *seen, row.last.sha256)
    return [f"{v:.6f}" if isinstance(v, float) else str(int(v) if isinstance(v, bool) else v) for v in values]


def row_of(values: list[str]) -> Attacked:
    """The row that was written so; raises ValueError."""
    line = dict(zip(COLUMNS, values, strict=True))
    cell = [line[name] for name in ("theme", "object", "seed")]
    plain = prediction_of([*cell, *(line[name] for name in PLAIN), ""])
    last = prediction_of([*cell, *(line[name] for name in LAST), line["sha256"]])
    truths = (bool(["0", "1"].index(line[name])) for name in ("before", "after"))
    found = int(line["steps"]), line["ids"], line["text"]
    return Attacked(line["target"], *plain[:3], *truths, *found, plain, last)


TABLE = Table(ATTACK, COLUMNS, values_of, row_of, "attack")
