"""What attacks and probes have in common: whom they ask, with which prompts"""

from dataclasses import dataclass

from evaluation import canvas, protocol
from evaluation.core.config import check_lists
from evaluation.core.errors import UserError
from evaluation.core.files import digest

PLAIN = "plain"  # the condition of a picture drawn as ever


def check_distinct(key: str, names: list[str]) -> None:
    """UserError for two of a probe's conditions that are written alike, as their pictures' files are."""
    taken = {PLAIN}
    for name in names:
        if (written := name.replace(" ", "_")) in taken:
            raise UserError(f"{key}: {name} is the name of another condition as well; choose another")
        taken.add(written)


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
    def conditions(self) -> list[str]:
        """Under which a prompt is drawn, beside the plain one."""
        return []

    def conditions_of(self, target: canvas.Target) -> list[str]:
        """Those of a target's prompts."""
        return [*self.conditions]

    @property
    def hash(self) -> str:
        return digest([protocol.hash_of(self, without=("name", "answers")), self.world.hash])
