"""What a method's network is asked for, by whoever stylises with it or trains it

    content = network.encode_content(images)      [B,3,H,W] in [0,1] -> features of B images
    style = network.encode_style(images)          the same
    images = network.decode(content, style)       features of B contents, of B styles -> unclipped [B,3,H,W]

Features are tensors [B,...], or tuples or dicts of them. `multiple` and `style_multiple` are of pixels that
the sides of a content and of a style must be; a method's OPTIONS are attributes. A network that is `named`
takes, as a last argument, the names of the images or pairs too.
"""

import copy

import torch
from torch import nn
from torch.utils._pytree import tree_map

from evaluation.core.errors import UserError


def with_options(network: nn.Module, **options) -> nn.Module:
    """The same network, its weights shared, with other options. Raises UserError for one that it has not."""
    changed = copy.copy(network)
    for name, value in options.items():
        if not hasattr(network, name):
            raise UserError(f"{name}={value}: {type(network).__name__} has no such option")
        setattr(changed, name, value)
    return changed


def stylise(network: nn.Module, content: torch.Tensor, style: torch.Tensor, **options) -> torch.Tensor:
    """[B,3,H,W] and [B,3,h,w] in [0,1] -> unclipped [B,3,H,W]; sides not of `multiple` come back rounded."""
    network = with_options(network, **options) if options else network
    return network.decode(network.encode_content(content), network.encode_style(style))


def take(features, rows: list[int]):
    """Features of the images numbered `rows`."""
    return tree_map(lambda t: t if rows == list(range(len(t))) else t[rows], features)
