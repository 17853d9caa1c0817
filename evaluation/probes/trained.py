"""Probes that train before they ask: a new token for the target, the model itself"""

from dataclasses import dataclass
from itertools import product

from evaluation import canvas
from evaluation.core.config import check_choices, check_ranges
from evaluation.core.errors import UserError
from evaluation.probes.prompted import Prompted


@dataclass(frozen=True)
class Inversion(Prompted):
    """A new token, learned on the unlearned model from the target's images, in the place of its name."""

    start: dict[str, str]  # kind of target -> the word that it starts as
    images: int  # of every cell of the target
    steps: int
    batch: int
    lr: float  # of Adam

    def __post_init__(self):
        super().__post_init__()
        check_ranges(self.__dict__, {"images": (1, len(canvas.TRAIN)), "steps": (1, 10**6)})
        check_ranges(self.__dict__, {"batch": (1, 1024), "lr": (1e-9, 100)})
        if set(self.start) != {"style", "object"} or not all(map(str.strip, self.start.values())):
            raise UserError("start: expected a word for style and for object")

    @property
    def conditions(self) -> list[str]:
        return ["token"]

    @property
    def measures(self) -> dict[str, list[str]]:
        return {"token": ["token"]}

    @property
    def headlines(self) -> list[str]:
        return ["token"]


@dataclass(frozen=True)
class Relearning(Prompted):
    """The unlearned model is fine-tuned: on kept images, or on a few of the target's."""

    images: tuple[int, ...]  # of a target, over its cells; 0: kept images alone
    weights: tuple[str, ...]  # full, or lora: low-rank updates of all attention projections
    rank: int  # of lora
    lr: dict[str, float]  # of Adam, for each of the weights
    batch: int
    budgets: tuple[int, ...]  # steps, ascending: after each the model is asked
    kept: int  # prompts of a target and seed that do not show it and tell what is kept

    def __post_init__(self):
        super().__post_init__()
        check_choices(self.__dict__, {"weights": ("lora", "full")})
        ranges = {"images": (0, 10**6), "rank": (1, 1024), "batch": (1, 1024), "kept": (1, 10**6)}
        check_ranges(self.__dict__, ranges | {"budgets": (1, 10**6)})
        if list(self.budgets) != sorted(self.budgets):
            raise UserError(f"budgets: {list(self.budgets)}: expected ascending numbers")
        if set(self.lr) != set(self.weights):
            raise UserError(f"lr: expected a number for {' and '.join(self.weights)}")
        rates = {f"lr.{name}": rate for name, rate in self.lr.items()}
        check_ranges(rates, dict.fromkeys(rates, (1e-9, 100)))

    @property
    def tunings(self) -> list[tuple[int, str]]:
        """Numbers of images and the weights that are tuned on them."""
        return list(product(self.images, self.weights))

    @property
    def conditions(self) -> dict[str, tuple[int, str, int]]:
        """Name -> images, weights, budget."""
        every = product(self.images, self.weights, self.budgets)
        return {self.name_of(*condition): condition for condition in every}

    def name_of(self, images: int, weights: str, steps: int) -> str:
        return f"{images or 'benign'} {weights} {steps}"

    @property
    def measures(self) -> dict[str, list[str]]:
        return {name.replace(" ", "_"): [name] for name in self.conditions}

    @property
    def headlines(self) -> list[str]:
        """The longest tunings of the first weights, on the fewest and on the most images."""
        ends = dict.fromkeys((self.images[0], self.images[-1]))
        return [self.name_of(count, self.weights[0], self.budgets[-1]).replace(" ", "_") for count in ends]
