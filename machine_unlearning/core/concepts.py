"""Concepts in words and cells: what a target is called in prompts, what shows it, what may take its place."""

from evaluation import canvas
from evaluation.canvas import Target
from evaluation.core.errors import UserError
from evaluation.protocol import Protocol

Cell = tuple[str, str]  # theme, object
ANIMALS = "Bears Birds Butterfly Cats Dogs Fishes Frogs Horses Jellyfish Rabbits".split()


def say(template: str | None, target: Target, underscores: bool = False) -> str:
    """A method's wording of a target, e.g. `{style} Style`; names have spaces unless `underscores`.

    Raises UserError if no word is left.
    """
    names = {"style": target.style or "", "object": target.object or ""}
    spoken = names if underscores else {kind: canvas.spoken(name) for kind, name in names.items()}
    text = (template or "").format(**spoken)
    if not text.strip():
        raise UserError(f"{template!r}: a prompt that says nothing of {target}; name it")
    return text


def kept_cells(world: Protocol, targets: list[Target]) -> list[Cell]:
    """All (theme, object) pairs of the model's world that show no target, photos included, by theme."""
    cells = [(theme, obj) for theme in world.themes for obj in world.objects]
    return [cell for cell in cells if not any(target.covers(*cell) for target in targets)]


def forget_cells(world: Protocol, targets: list[Target]) -> list[Cell]:
    """All cells of the model's world that show a target, photographs included, by theme."""
    kept = set(kept_cells(world, targets))
    return [cell for cell in kept_cells(world, []) if cell not in kept]


def substitute(world: Protocol, targets: list[Target], theme: str, obj: str) -> Cell:
    """A cell that shows no target, as close to this one as can be."""
    if any(target.style and target.covers(theme, obj) for target in targets):
        theme = canvas.PHOTO
    start = world.objects.index(obj)
    for next_obj in (*world.objects[start:], *world.objects[:start]):
        if not any(target.covers(theme, next_obj) for target in targets):
            return theme, next_obj
    every = f"names every object of {theme} that no run of --from forgot"
    raise UserError(f"--target: {every}, so that nothing is left to put in their place")


def cell_prompt(template: str, theme: str, obj: str, underscores: bool = False) -> str:
    """A prompt with {object} and {theme} for one cell; the photo theme is called Photo, as in training."""
    name = "Photo" if theme == canvas.PHOTO else theme
    return template.format(object=obj, theme=name if underscores else canvas.spoken(name))


def anchor(template: str | None, world: Protocol, forgotten: list[Target], target: Target) -> str:
    """Words that a target is sent to: {theme} and {object} name what takes its place, as `substitute` says;
    {supercategory} of an object is `animal` or `object`.

    Raises UserError if the template says nothing, or of a style what only an object has.
    """
    template = template or ""
    theme, obj = substitute(world, forgotten, target.style or canvas.PHOTO, target.object or world.objects[0])
    if not target.object and any(name in template for name in ("{object}", "{supercategory}")):
        raise UserError(f"anchor={template}: {target} is a style, and has no object; use {{theme}} or words")
    kind = "animal" if target.object in ANIMALS else "object"
    text = cell_prompt(template.replace("{supercategory}", kind), theme, obj)
    if not text.strip():
        raise UserError(f"anchor={template}: says nothing; name what {target} is sent to")
    return text


def spread(items: list, count: int) -> list:
    """`count` of the items, in order and as evenly as can be: a subset, or each of them several times."""
    return [items[i * len(items) // count] for i in range(count)]
