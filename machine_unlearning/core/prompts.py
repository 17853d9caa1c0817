"""Prompts of closed forms: those to erase with their guides, and those to preserve."""

from machine_unlearning.core import concepts


def edit_prompts(args) -> dict[str, str]:
    """Every wording of every cell that shows a target -> its guide: the guide's wording (without one, the
    same wording) of the cell that takes its place."""
    s, guides = args.settings, {}
    for template in s.edit:
        for cell in concepts.forget_cells(args.world, args.targets):
            said = concepts.cell_prompt(template, *cell, s.underscores)
            guide = template if s.guide is None else s.guide
            instead = concepts.substitute(args.world, args.forgotten, *cell)
            guides[said] = concepts.cell_prompt(guide, *instead) or " "
    return guides


def world_prompts(args) -> tuple[list[str], list[bool]]:
    """The empty prompt and that of every cell of the world, and which of them show no target."""
    s, everything = args.settings, concepts.kept_cells(args.world, [])
    prompts = ["", *(concepts.cell_prompt(s.preserve_prompt, *cell, s.underscores) for cell in everything)]
    kept = set(concepts.kept_cells(args.world, args.forgotten))
    return prompts, [True, *(cell in kept for cell in everything)]
