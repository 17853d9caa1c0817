"""How far predicted noise is from a retrained model's: `distance.csv`, a row for each noisy image"""

from typing import NamedTuple

from evaluation.answers.blocks import Table


class Distant(NamedTuple):
    """A noisy image; mean squared differences of the noise predicted in it."""

    target: str
    theme: str
    object: str
    number: int  # of the image in the data set
    seed: int  # of the noise
    t: int  # timestep
    model: float  # difference of the model asked
    base: float  # that of the base model


def values_of(row: Distant) -> list[str]:
    return [f"{value:.6g}" if isinstance(value, float) else str(value) for value in row]


def row_of(values: list[str]) -> Distant:
    """The row that was written so; raises ValueError."""
    kinds = Distant.__annotations__.values()
    return Distant(*(kind(value) for kind, value in zip(kinds, values, strict=True)))


TABLE = Table("distance.csv", list(Distant._fields), values_of, row_of, "probe")
