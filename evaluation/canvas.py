"""The facts of UnlearnCanvas: names, their order, prompts and file names.

Everything here is plain data and string work, so importing it costs nothing. Names keep underscores on
disk and have spaces in prompts. A *theme* is a style or the photographs (`PHOTO`); a *target* is what a
model is asked to forget: a style, an object, or one object in one style.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from evaluation.core.errors import UserError, closest, command

PHOTO = "Seed_Images"  # the folder of photographs that the stylised images were made from

OBJECTS = (  # the order of the object classifier's 20 outputs
    "Architectures Bears Birds Butterfly Cats Dogs Fishes Flame Flowers Frogs Horses Human Jellyfish Rabbits "
    "Sandwiches Sea Statues Towers Trees Waterfalls"
).split()

STYLES = (  # the 50 styles that are unlearned, alphabetical
    "Abstractionism Artist_Sketch Blossom_Season Bricks Byzantine Cartoon Cold_Warm Color_Fantasy Comic_Etch "
    "Crayon Cubism Dadaism Dapple Defoliation Early_Autumn Expressionism Fauvism French Glowing_Sunset "
    "Gorgeous_Love Greenfield Impressionism Ink_Art Joy Liquid_Dreams Magic_Cube Meta_Physics Meteor_Shower "
    "Monet Mosaic Neon_Lines On_Fire Pastel Pencil_Drawing Picasso Pop_Art Red_Blue_Ink Rust Sketch "
    "Sponge_Dabbed Structuralism Superstring Surrealism Ukiyoe Van_Gogh Vibrant_Flow Warm_Love Warm_Smear "
    "Watercolor Winter"
).split()

UNUSED_STYLES = (  # in the data set, never unlearned: held-out styles
    "Blue_Blooming Crypto_Punks Dreamweave Foliage_Patchwork Impasto Palette_Knife Pointillism Rainwash "
    "Realistic_Watercolor Techno"
).split()

# a pair for every style, objects in turn; before Sketch one object, Trees, is passed over
PAIRS = [f"{style}+{OBJECTS[(i + (style >= 'Sketch')) % len(OBJECTS)]}" for i, style in enumerate(STYLES)]

CHAIN = "~"  # between requests that a model is asked to forget in turn, as in Sketch~Cats~Monet

THEMES = sorted([*STYLES, PHOTO])  # the order of the style classifier's 51 outputs; PHOTO is number 38

TASKS = ("style", "object")  # of the two classifiers, and kinds of targets

SEEDS = (188, 288, 588, 688, 888)
TRAIN = tuple(range(1, 19))  # image numbers to train on
TEST = (19, 20)  # image numbers to test on: never trained on
NUMBERS = (*TRAIN, *TEST)  # of the images of every folder

TEMPLATE = "A {object} image in {theme} style."


class Target(NamedTuple):
    """What to forget: a style, an object, or (both given) an object in one style."""

    style: str | None
    object: str | None

    @property
    def kind(self) -> str:
        return "pair" if self.style and self.object else "style" if self.style else "object"

    def covers(self, theme: str, obj: str) -> bool:
        """Whether an image of `obj` in `theme` shows the target."""
        return self.style in (None, theme) and self.object in (None, obj)

    def __str__(self) -> str:
        return "+".join(name for name in self if name)


def spoken(name: str) -> str:
    """A name as prompts say it: `Van_Gogh` -> `Van Gogh`."""
    return name.replace("_", " ")


def prompt(theme: str, obj: str, template: str = TEMPLATE, photo: str = "Photo") -> str:
    """The benchmark's prompt for one cell; `photo` is what prompts call the photo theme."""
    return template.format(object=spoken(obj), theme=photo if theme == PHOTO else spoken(theme))


def image_path(root: str | Path, theme: str, obj: str, index: int) -> Path:
    """Where image `index` (1 to 20) of the data set lies."""
    return Path(root) / theme / obj / f"{index}.jpg"


def answer_name(theme: str, obj: str, seed: int, suffix: str = ".png") -> str:
    return f"{theme}_{obj}_seed{seed}{suffix}"


def parse_answer_name(name: str) -> tuple[str, str, int]:
    """`Van_Gogh_Cats_seed188.png` -> (`Van_Gogh`, `Cats`, 188). Objects have no underscore, themes may."""
    cell, _, seed = Path(name).stem.rpartition("_seed")
    theme, _, obj = cell.rpartition("_")
    if not (theme and obj and seed.isdigit()):
        raise UserError(f"{name}: not an answer-set image; expected {{theme}}_{{object}}_seed{{seed}}.png")
    return theme, obj, int(seed)


def parse_targets(text: str, flag: str = "--target") -> list[Target]:
    """`Sketch`, `Cats`, `Sketch+Cats`, or several of them with commas -> targets; raises UserError."""
    return [_parse_target(part.strip(), flag) for part in text.split(",")]


def _parse_target(text: str, flag: str) -> Target:
    names = text.split("+")
    styles = [name for name in names if name in STYLES or name in UNUSED_STYLES]
    objects = [name for name in names if name in OBJECTS]
    if unknown := [name for name in names if name not in [*styles, *objects]]:
        meant = closest(unknown[0], STYLES + OBJECTS)
        raise UserError(f"{flag} {text}: no style or object is called {unknown[0]!r}; {meant}")
    if len(styles) > 1 or len(objects) > 1:
        raise UserError(f"{flag} {text}: a pair is one style and one object, such as Sketch+Cats")
    return Target(*styles or [None], *objects or [None])


@command
def main(argv=None):
    names = {"styles": STYLES, "objects": OBJECTS, "themes": THEMES}
    parser = argparse.ArgumentParser("python -m evaluation.canvas", description="Names for scripts.")
    parser.add_argument("what", choices=names)
    print(*names[parser.parse_args(argv).what])


if __name__ == "__main__":
    main()
