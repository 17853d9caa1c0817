"""Losses that several methods are trained with, in the eyes of VGG-19: relu1_1 ... relu5_1 of x are F_1 ...
F_5

    content    |n(F_4(x)) - n(F_4(c))|^2 + |n(F_5(x)) - n(F_5(c))|^2
    style      sum_l |m(F_l(x)) - m(F_l(s))|^2 + |d(F_l(x)) - d(F_l(s))|^2
    identity1  |image(c,c) - c|^2 + |image(s,s) - s|^2
    identity2  the same of F_1 ... F_5

m and d are means and deviations of the channels, n a map with those taken out. Squares are means over all
elements.
"""

import torch
import torch.nn.functional as F

from style_transfer.core.blocks import mean_std, mvn

Maps = list[torch.Tensor]  # of VGG-19, [B,C,h,w] each, relu1_1 first


def weigh(terms: dict[str, torch.Tensor], weights) -> torch.Tensor:
    """Sum of the losses, each times its weight."""
    return sum(weights[name] * term for name, term in terms.items() if weights[name])


def feature_loss(x: Maps, y: Maps) -> torch.Tensor:
    """Squared differences of the maps, summed over the layers."""
    return sum(F.mse_loss(a, b) for a, b in zip(x, y, strict=True))


def content_loss(x: Maps, y: Maps) -> torch.Tensor:
    return sum(F.mse_loss(mvn(a), mvn(b)) for a, b in zip(x[3:], y[3:], strict=True))


def style_loss(x: Maps, y: Maps) -> torch.Tensor:
    """Also of fewer layers than five."""
    return sum(feature_loss(mean_std(a), mean_std(b)) for a, b in zip(x, y, strict=True))


def four_losses(encoder, images: torch.Tensor, features: Maps, contents, styles, made: Maps, same) -> dict:
    """content, style, identity1 and identity2, without their weights.

    `images` [N,3,H,W] are contents and styles together, `features` VGG's maps of them; `contents` and
    `styles` are the places there of what the outputs were made of, whose maps are `made`; `same` [N,3,H,W]
    are the images in their own style.
    """
    return {
        "content": content_loss(made, [feature[contents] for feature in features]),
        "style": style_loss(made, [feature[styles] for feature in features]),
        "identity1": 2 * F.mse_loss(same, images),  # the means over contents and over styles are summed
        "identity2": 2 * feature_loss(encoder(same), features),
    }
