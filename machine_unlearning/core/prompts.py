"""Prompts of edits: those to erase with their guides or anchors, and those to preserve."""

from evaluation import canvas
from evaluation.core.errors import UserError
from machine_unlearning.core import concepts


def edit_prompts(args) -> dict[str, str]:
    """Every wording of every cell that shows a target -> its guide: the guide's wording (without one, the
    same wording) of the cell that takes its place."""
    s, guides = args.settings, {}
    for template in s.edit:
        for cell, instead in cells(args).items():
            said = concepts.cell_prompt(template, *cell, s.underscores)
            guide = template if s.guide is None else s.guide
            guides[said] = concepts.cell_prompt(guide, *instead) or " "
    return guides


def world_prompts(args) -> tuple[list[str], list[bool]]:
    """The empty prompt and what `preserve_prompt` (a wording or several) says of the world, each once;
    and which of them are said of a cell that shows no target."""
    s, prompts = args.settings, {"": True}
    wordings = [s.preserve_prompt] if isinstance(s.preserve_prompt, str) else s.preserve_prompt
    kept = set(concepts.kept_cells(args.world, args.forgotten))
    for wording in wordings:
        for cell in concepts.kept_cells(args.world, []):
            if cell[0] == canvas.PHOTO and "{object}" not in wording:
                continue  # a style's bare name: photographs are none
            prompt = concepts.cell_prompt(wording, *cell, s.underscores)
            prompts[prompt] = prompts.get(prompt, False) or cell in kept
    return list(prompts), list(prompts.values())


def anchors(args) -> dict[str, str]:
    """Every target in words (setting `prompt`) -> the words it is sent to (`anchor`).

    Raises UserError if these are the same to CLIP.
    """
    s, pairs = args.settings, {}
    for target in args.targets:
        prompt = concepts.say(s.prompt, target)
        pairs[prompt] = concepts.anchor(s.anchor, args.world, args.forgotten, target)
        if pairs[prompt].lower().split() == prompt.lower().split():
            raise UserError(f"anchor={s.anchor}: sends {prompt!r} to itself; name something else")
    return pairs


def cells(args) -> dict[concepts.Cell, concepts.Cell]:
    """Every cell that shows a target -> the cell that takes its place."""
    shown = concepts.forget_cells(args.world, args.targets)
    return {cell: concepts.substitute(args.world, args.forgotten, *cell) for cell in shown}
