"""What an attack found: `attack.csv`, a row for each prompt of a target, beside the pictures that ended it"""

import csv
from pathlib import Path
from typing import NamedTuple

from evaluation.answers.predictions import Prediction
from evaluation.core.errors import UserError, brief
from evaluation.core.files import atomic

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
    cell = line["theme"], line["object"], int(line["seed"])

    def prediction(which: str, sha256: str) -> Prediction:
        kinds = (Prediction.__annotations__[name] for name in SEEN)
        seen = (kind(line[f"{which}_{name}"]) for kind, name in zip(kinds, SEEN))
        return Prediction(*cell, *seen, sha256)

    truths = (bool(["0", "1"].index(line[name])) for name in ("before", "after"))
    seen = prediction("plain", ""), prediction("last", line["sha256"])
    return Attacked(line["target"], *cell, *truths, int(line["steps"]), line["ids"], line["text"], *seen)


def write_attacked(folder: str | Path, rows: list[Attacked]) -> None:
    """Same rows, same bytes."""
    with (
        atomic(Path(folder) / ATTACK) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        # tokens may spell any byte, and a lone carriage return outside quotes ends a line for readers
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows(map(values_of, rows))


def read_attacked(folder: str | Path) -> list[Attacked]:
    """The rows; raises UserError for a file that is missing or damaged."""
    path = Path(folder) / ATTACK
    if not path.exists():
        raise UserError(f"{folder}: no {ATTACK}; make it with python -m machine_unlearning.attack")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        if header != COLUMNS or not lines:
            raise ValueError("not the columns of an attack, or no rows")
        return list(map(row_of, lines))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({brief(error)}); remove the folder and attack again") from error
