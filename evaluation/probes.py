"""Protocols of probes, which look for what a model still knows of its target: settings, name and hash

The YAML files are in `evaluation/protocols/probes/{kind}/`. Prompts, sampler, size and names are those of the
sampling protocol that `answers` names, whose hash is in the probe's own. A probe draws several pictures of a
prompt, one under each of its `conditions`; `measures` tells by which of them a prompt counts as recognised.
"""

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from evaluation import canvas, protocol
from evaluation.canvas import Target
from evaluation.core.config import check_choices, check_lists, check_ranges
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
    def headlines(self) -> list[str]:
        """The best of all."""
        return list(self.measures)[-1:]


NEIGHBOUR = "neighbour"  # the level of the ladder that asks for what should be kept


@dataclass(frozen=True)
class Ladder(Prompted):
    """The target is asked for in other words, from its bare name to a description that leaves it out.

    Templates may have {theme} and {object}, as the sampling protocol has, {name} of the target, {misspelt},
    and whatever `words` says of every target, as {description}. A pair has only the levels that name it.
    """

    levels: dict[str, dict[str, str]]  # level -> kind of target -> template
    words: dict[str, dict[str, str]]  # style or object -> what a template calls it -> the words

    def __post_init__(self):
        super().__post_init__()
        for level, templates in self.levels.items():
            protocol.check_name(level)
            check_choices({level: list(templates)}, {level: ("style", "object", "pair")})
            for kind, template in templates.items():
                self._check(level, kind, template)
        if not self.conditions:
            raise UserError("levels is empty; name one at least")

    def _check(self, level: str, kind: str, template: str) -> None:
        """UserError for a template with braces that some target has no words for."""
        names = set(re.findall(r"{(\w+)}", template))
        if set("{}") & set(re.sub(r"{\w+}", "", template)):
            raise UserError(f"levels.{level}.{kind}: {template!r}: expected {{words}} and no other braces")
        of_kind = [name for name in self.world.everything if (name in canvas.OBJECTS) == (kind == "object")]
        of_kind = of_kind if kind != "pair" else ["a pair"]
        for word in sorted(names - {"theme", "object", "name", "misspelt"}):
            if lacking := [name for name in of_kind if word not in self.words.get(name, {})]:
                raise UserError(f"words: {lacking[0]} has no {word}, which levels.{level}.{kind} asks for")
            if word == NEIGHBOUR:
                near = {f"words.{name}.{word}": self.words[name][word] for name in of_kind}
                check_choices(near, dict.fromkeys(near, of_kind))

    def prompt(self, level: str, target: Target, theme: str, obj: str, seed: int) -> str | None:
        """What a level asks in place of a cell's prompt; None if it has no template for such a target."""
        if (template := self.levels[level].get(target.kind)) is None:
            return None
        name = " ".join(map(canvas.spoken, filter(None, target)))
        words = {"name": name, "misspelt": misspelt(name, (theme, obj, seed))}
        words |= {key: canvas.spoken(text) for key, text in self.words.get(str(target), {}).items()}
        words |= {"object": canvas.spoken(obj)}
        words |= {"theme": self.world.photo if theme == canvas.PHOTO else canvas.spoken(theme)}
        return template.format(**words)

    @property
    def conditions(self) -> list[str]:
        return list(self.levels)

    @property
    def measures(self) -> dict[str, list[str]]:
        """Every level for itself, and all but the neighbour's together."""
        own = [level for level in self.levels if level != NEIGHBOUR]
        return {level: [level] for level in own} | {"any_level": own}

    @property
    def headlines(self) -> list[str]:
        return ["any_level"]


def misspelt(name: str, key: tuple) -> str:
    """The name with a letter dropped, doubled or swapped with the next, as the key says; not the first."""
    number = int(digest([name, *key]), 16)
    letters = [i for i in range(1, len(name) - 1) if name[i : i + 2].isalpha() and name[i] != name[i + 1]]
    if not letters:  # two letters, or all alike
        return name + name[-1]
    number, fault = divmod(number, 3)
    i = letters[number % len(letters)]
    middle = ("", 2 * name[i], name[i + 1] + name[i])[fault]
    return name[:i] + middle + name[i + 1 + (fault == 2) :]


@dataclass(frozen=True)
class Inversion(Prompted):
    """A new token, learned on the unlearned model from the target's images, in the place of its name."""

    start: dict[str, str]  # kind of target -> the word that it starts as
    images: int  # of every cell of the target
    steps: int
    batch: int
    lr: float  # of Adam

    def __post_init__(self):
        check_ranges(self.__dict__, {"images": (1, len(canvas.TRAIN)), "steps": (1, 10**6)})
        check_ranges(self.__dict__, {"batch": (1, 1024), "lr": (1e-9, 100)})
        if set(self.start) != {"style", "object"}:
            raise UserError("start: expected a word for style and for object")
        super().__post_init__()

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
        check_choices(self.__dict__, {"weights": ("lora", "full")})
        ranges = {"images": (0, 10**6), "rank": (1, 1024), "batch": (1, 1024), "kept": (1, 10**6)}
        check_ranges(self.__dict__, ranges | {"budgets": (1, 10**6)})
        if list(self.budgets) != sorted(self.budgets):
            raise UserError(f"budgets: {list(self.budgets)}: expected ascending numbers")
        if set(self.lr) != set(self.weights):
            raise UserError(f"lr: expected a number for {' and '.join(self.weights)}")
        rates = {f"lr.{name}": rate for name, rate in self.lr.items()}
        check_ranges(rates, dict.fromkeys(rates, (1e-9, 100)))
        super().__post_init__()

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


KINDS = {
    "completion": Completion,
    "noise": Noise,
    "ladder": Ladder,
    "inversion": Inversion,
    "relearning": Relearning,
}


def load(kind: str, name: str | Path) -> Prompted:
    """The probe's protocol of that name, or the one in that YAML file; raises UserError."""
    return protocol.load(name, FOLDER / kind, KINDS[kind], {}, "--probe")
