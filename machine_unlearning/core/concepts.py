"""Concepts in words: what a target is called in a method's prompt, and which cells a model should keep."""

from evaluation import canvas
from evaluation.canvas import Target
from evaluation.protocol import Protocol


def say(template: str, target: Target, underscores: bool = False) -> str:
    """A method's wording of a target, e.g. `{style} Style`; names have spaces unless `underscores`."""
    names = {"style": target.style or "", "object": target.object or ""}
    return template.format(**(names if underscores else {k: canvas.spoken(v) for k, v in names.items()}))


def kept_cells(world: Protocol, targets: list[Target]) -> list[tuple[str, str]]:
    """All (theme, object) pairs of the model's world that show no target, photos included, by theme."""
    cells = [(theme, obj) for theme in world.themes for obj in world.objects]
    return [cell for cell in cells if not any(target.covers(*cell) for target in targets)]


def cell_prompt(template: str, theme: str, obj: str, underscores: bool = False) -> str:
    """A prompt with {object} and {theme} for one cell; the photo theme is called Photo, as in training."""
    name = "Photo" if theme == canvas.PHOTO else theme
    return template.format(object=obj, theme=name if underscores else canvas.spoken(name))
