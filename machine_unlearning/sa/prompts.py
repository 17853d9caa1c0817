"""SA's prompts: what is drawn to be rehearsed, and the target's captions with what takes its place."""

from evaluation.core.errors import UserError
from machine_unlearning.core import concepts


def replayed(args) -> tuple[list[str], list[int]]:
    """-> prompts of `images` cells, evenly from the model's world, and the numbers of those to rehearse."""
    s = args.settings
    cells = concepts.spread(concepts.kept_cells(args.world, []), s.images)
    earlier = [target for target in args.forgotten if target not in args.targets]
    gone = earlier if s.replay_target else args.forgotten
    keep = concepts.kept_cells(args.world, gone)
    kept = [i for i, cell in enumerate(cells) if cell in keep]
    if not kept:
        shown = ", ".join(map(str, gone))
        raise UserError(f"images={s.images}: all of them show {shown}, so nothing is left to rehearse")
    return [concepts.cell_prompt(s.replay, *cell) for cell in cells], kept


def surrogates(args) -> tuple[list[str], list[str]]:
    """-> captions that show a target, and prompts of the images that take its place; `surrogates` of each."""
    s = args.settings
    cells = concepts.spread(concepts.forget_cells(args.world, args.targets), s.surrogates)
    captions = [concepts.cell_prompt(s.forget, *cell, s.underscores) for cell in cells]
    instead = [concepts.substitute(args.world, args.forgotten, *cell) for cell in cells]
    return captions, [concepts.cell_prompt(s.surrogate, *cell) for cell in instead]
