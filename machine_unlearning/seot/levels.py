"""At which level of the UNet the attention maps have the size that the settings ask for."""

from collections.abc import Mapping

from evaluation.core.errors import UserError


def level_of(unet: Mapping, side: int, map_size: int) -> int:
    """The level with attention over map_size x map_size queries, for latents of `side`.

    `unet` is the config.json of the UNet. UserError if no level has.
    """
    blocks = enumerate(unet["down_block_types"])
    grids = {side >> level: level for level, kind in blocks if "CrossAttn" in kind}
    if map_size not in grids:
        raise UserError(
            f"map_size={map_size}: latents of {side} x {side} have attention maps of side "
            f"{', '.join(map(str, grids))}; run seot/train.py again with one of these"
        )
    return grids[map_size]
