"""What Diff-QuickFix reads: captions of what is to be forgotten, each with an anchor's."""

from typing import NamedTuple

from evaluation import canvas
from machine_unlearning.core import concepts
from machine_unlearning.core.prompts import anchors, cells


class Caption(NamedTuple):
    """A prompt, and the words in it whose last token is edited."""

    text: str
    name: str


def captions(words: str, kind: str) -> list[Caption]:
    """`bare`: the words alone. `augmented`: also as a photo, an image, a picture; "A ..." is then "a ..."."""
    within = "a" + words[1:] if words.startswith("A") else words
    texts = [words, f"A photo of {within}", f"An image of {within}", f"A picture of {within}"]
    return [Caption(text, words) for text in (texts if kind == "augmented" else texts[:1])]


def in_words(args) -> list[tuple[Caption, Caption]]:
    """Captions of every target, with its anchor's."""
    kind, pairs = args.settings.captions, []
    for concept, anchor in anchors(args).items():
        pairs += zip(captions(concept, kind), captions(anchor, kind))
    return pairs


def in_cells(args) -> list[tuple[Caption, Caption]]:
    """The benchmark's prompt of every cell that shows a target, with that of the cell in its place.

    From the last name that differs, both sentences run in step.
    """
    pairs = []
    for cell, instead in cells(args).items():
        name = "{theme}" if cell[0] != instead[0] else "{object}"
        both = ([concepts.cell_prompt(text, *c) for text in (canvas.TEMPLATE, name)] for c in (cell, instead))
        pairs.append(tuple(Caption(*texts) for texts in both))
    return pairs


def edit_captions(args) -> list[tuple[Caption, Caption]]:
    """-> pairs of a concept's and an anchor's caption, as `wording` says."""
    return in_words(args) if args.settings.wording == "words" else in_cells(args)


def kept_prompts(args) -> list[str]:
    """The empty prompt, and that of every cell that shows nothing forgotten."""
    kept = concepts.kept_cells(args.world, args.forgotten)
    return ["", *(concepts.cell_prompt(canvas.TEMPLATE, *cell) for cell in kept)]
