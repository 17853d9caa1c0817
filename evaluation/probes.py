"""Protocols of probes, which look for what a model still knows of its target: settings, name and hash

The YAML files are in `evaluation/protocols/probes/{kind}/`. Prompts, sampler, size and names are those of the
sampling protocol that `answers` names, whose hash is in the probe's own. A probe draws several pictures of a
prompt, one under each of its `conditions`; `measures` tells by which of them a prompt counts as recognised.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

from evaluation import protocol
from evaluation.core.config import check_lists, check_ranges
from evaluation.core.errors import UserError
from evaluation.core.files import digest

FOLDER = protocol.FOLDER / "probes"


@dataclass(frozen=True)
class Prompted:
    """What is asked for with the prompts of a sampling protocol that should show a target."""

    name: str
    answers: str  # the sampling protocol: a name, or a YAML file
    seeds: tuple[int, ...]  # those of its seeds that are asked for

    def __post_init__(self):
        protocol.check_name(self.name)
        check_lists(self.__dict__)
        for seed in self.seeds:
            if seed not in self.world.seeds:
                known = ", ".join(map(str, self.world.seeds))
                raise UserError(f"seeds: {seed} is none of protocol {self.answers}; choose from {known}")

    @property
    def world(self) -> protocol.Protocol:
        """The sampling protocol."""
        return protocol.load(self.answers, flag="answers")

    @property
    def hash(self) -> str:
        return digest([protocol.hash_of(self, without=("name", "answers")), self.world.hash])


@dataclass(frozen=True)
class Completion(Prompted):
    """The base model draws a share of the steps, the unlearned model the rest."""

    shares: tuple[float, ...]  # in (0,1), ascending

    def __post_init__(self):
        if list(self.shares) != sorted({*self.shares}) or not all(0 < share < 1 for share in self.shares):
            raise UserError(f"shares: {list(self.shares)}: expected ascending numbers between 0 and 1")
        super().__post_init__()

    @property
    def conditions(self) -> dict[str, int]:
        """Name -> how many steps the base model draws."""
        return {f"{share:g}": max(1, round(share * self.world.steps)) for share in self.shares}

    @property
    def measures(self) -> dict[str, list[str]]:
        """Every share for itself."""
        return {f"after_{name}": [name] for name in self.conditions}

    @property
    def headline(self) -> str:
        """The share nearest to a fifth."""
        return f"after_{min(self.shares, key=lambda share: abs(share - 0.2)):g}"


@dataclass(frozen=True)
class Noise(Prompted):
    """Every step of DDIM adds noise of its own (eta), a little more than belongs there."""

    etas: tuple[float, ...]
    variances: tuple[float, ...]  # factors on that of the added noise
    draws: int  # of noise, for every combination of both

    def __post_init__(self):
        check_ranges(self.__dict__, {"draws": (1, 1000)})
        for name in ("etas", "variances"):
            if not all(0 < value <= 10 for value in getattr(self, name)):
                raise UserError(f"{name}: {list(getattr(self, name))}: expected numbers above 0, up to 10")
        super().__post_init__()

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
    def headline(self) -> str:
        """The best of all."""
        return list(self.measures)[-1]


KINDS = {"completion": Completion, "noise": Noise}


def load(kind: str, name: str | Path) -> Completion | Noise:
    """The probe's protocol of that name, or the one in that YAML file; raises UserError."""
    return protocol.load(name, FOLDER / kind, KINDS[kind], {}, "--probe")
