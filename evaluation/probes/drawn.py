"""Probes that draw otherwise: what the base model began, and with noise in every step"""

from dataclasses import dataclass
from itertools import product

from evaluation.core.config import check_ranges
from evaluation.core.errors import UserError
from evaluation.probes.prompted import Prompted, check_distinct


@dataclass(frozen=True)
class Completion(Prompted):
    """The base model draws a share of the steps, the unlearned model the rest."""

    shares: tuple[float, ...]  # in (0,1), ascending

    def __post_init__(self):
        super().__post_init__()
        if list(self.shares) != sorted({*self.shares}) or not all(0 < share < 1 for share in self.shares):
            raise UserError(f"shares: {list(self.shares)}: expected ascending numbers between 0 and 1")
        check_distinct("shares", [f"{share:g}" for share in self.shares])

    @property
    def conditions(self) -> dict[str, int]:
        """Name -> how many steps the base model draws."""
        return {f"{share:g}": max(1, round(share * self.world.steps)) for share in self.shares}

    @property
    def measures(self) -> dict[str, list[str]]:
        """Every share for itself."""
        return {f"after_{name}": [name] for name in self.conditions}

    @property
    def headlines(self) -> list[str]:
        """The share nearest to a fifth."""
        return [f"after_{min(self.shares, key=lambda share: abs(share - 0.2)):g}"]


@dataclass(frozen=True)
class Noise(Prompted):
    """Every step of DDIM adds noise of its own (eta), a little more than belongs there."""

    etas: tuple[float, ...]
    variances: tuple[float, ...]  # factors on that of the added noise
    draws: int  # of noise, for every combination of both

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self.__dict__, {"draws": (1, 1000)})
        for name in ("etas", "variances"):
            if not all(0 < value <= 10 for value in getattr(self, name)):
                raise UserError(f"{name}: {list(getattr(self, name))}: expected numbers above 0, up to 10")
            check_distinct(name, [f"{value:g}" for value in getattr(self, name)])

    @property
    def conditions(self) -> dict[str, tuple[int, float, float]]:
        """Name -> draw, variance, eta; the etas first."""
        every = product(range(self.draws), self.variances, self.etas)
        return {f"{eta:g} {variance:g} {draw}": (draw, variance, eta) for draw, variance, eta in every}

    @property
    def measures(self) -> dict[str, list[str]]:
        """The first, all etas once, and everything: the best of so many pictures."""
        names = list(self.conditions)
        return {f"best_of_{count}": names[:count] for count in sorted({1, len(self.etas), len(names)})}

    @property
    def headlines(self) -> list[str]:
        """The best of all."""
        return list(self.measures)[-1:]
