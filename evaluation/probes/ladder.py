"""The probe that asks in other words"""

import re
from dataclasses import dataclass

from evaluation import canvas, protocol
from evaluation.canvas import Target
from evaluation.core.config import check_choices, check_lists
from evaluation.core.errors import UserError
from evaluation.core.files import digest
from evaluation.probes.prompted import Prompted, check_distinct

NEIGHBOUR = "neighbour"  # the level of the ladder that asks for what should be kept
ANY = "any_level"  # the measure of all others together


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
        check_distinct("levels", [ANY, *self.levels])
        for level, templates in self.levels.items():
            protocol.check_name(level, "levels")
            check_choices({level: list(templates)}, {level: ("style", "object", "pair")})
            check_lists({f"levels.{level}": list(templates)})
            for kind, template in templates.items():
                self._check(level, kind, template)
        if not self.conditions:
            raise UserError("levels is empty; name one at least")

    def _check(self, level: str, kind: str, template: str) -> None:
        """UserError for a template with braces that some target has no words for."""
        names = set(re.findall(r"{(\w+)}", template))
        if set("{}") & set(re.sub(r"{\w+}", "", template)):
            raise UserError(f"levels.{level}.{kind}: {template!r}: expected {{words}} and no other braces")
        if level == NEIGHBOUR and NEIGHBOUR not in names:
            raise UserError(f"levels.{level}.{kind}: {template!r}: expected {{{NEIGHBOUR}}} in it")
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

    def conditions_of(self, target: Target) -> list[str]:
        return [level for level, templates in self.levels.items() if target.kind in templates]

    @property
    def measures(self) -> dict[str, list[str]]:
        """Every level for itself, and all but the neighbour's together."""
        own = [level for level in self.levels if level != NEIGHBOUR]
        return {level: [level] for level in own} | {ANY: own}

    @property
    def headlines(self) -> list[str]:
        return [ANY]


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
