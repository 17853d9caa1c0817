"""Canny's edges (IEEE PAMI 1986) as OpenCV finds them with a 3 x 3 Sobel filter and the gradient |dx| + |dy|.

An edge is a pixel whose gradient is the largest along its own direction, told apart in four sectors, and
either exceeds `high` or exceeds `low` and hangs together with one that does. Of the three colours the one
with the largest gradient decides.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

TAN_22 = 13573  # tan(22.5 degrees) * 2^15, rounded: the sectors' borders, in OpenCV's integers
DETECT, LOW, HIGH = 512, 30, 70  # pixels, and thresholds


def sobel(images: torch.Tensor):
    """uint8 [B,3,H,W] -> int32 dx, dy [B,H,W] of the colour with the largest |dx| + |dy|."""
    x = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    rows = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    columns = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    dx, dy = rows[..., 2:] - rows[..., :-2], columns[:, :, 2:] - columns[:, :, :-2]
    colour = (dx.abs() + dy.abs()).argmax(1, keepdim=True)
    return dx.gather(1, colour)[:, 0].int(), dy.gather(1, colour)[:, 0].int()


def ridges(dx: torch.Tensor, dy: torch.Tensor):
    """-> gradient [B,H,W], and where it is no smaller than at both neighbours along its direction.

    Equal neighbours count as smaller on one side only, so that a flat ridge is one pixel wide.
    """
    size = dx.abs() + dy.abs()
    around = F.pad(size, (1, 1, 1, 1))
    height, width = size.shape[1:]

    def peak(down: int, right: int, also_equal: bool):
        """Larger than at the pixel behind; larger than, or as large as, at the one ahead."""
        behind = around[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        ahead = around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        return (size > behind) & (size >= ahead if also_equal else size > ahead)

    flat, steep = dx.abs() * TAN_22, dy.abs() << 15
    horizontal, vertical = steep < flat, steep > flat + (dx.abs() << 16)  # tan 67.5 = tan 22.5 + 2
    diagonal = torch.where((dx ^ dy) < 0, peak(1, -1, False), peak(1, 1, False))
    along = torch.where(vertical, peak(1, 0, True), diagonal)
    return size, torch.where(horizontal, peak(0, 1, True), along)


def grow(edges: torch.Tensor) -> torch.Tensor:
    """bool [B,H,W]: these pixels and all eight neighbours of each."""
    wide = edges.clone()
    wide[:, :, 1:] |= edges[:, :, :-1]
    wide[:, :, :-1] |= edges[:, :, 1:]
    both = wide.clone()
    both[:, 1:] |= wide[:, :-1]
    both[:, :-1] |= wide[:, 1:]
    return both


def canny(images: torch.Tensor, low: int = LOW, high: int = HIGH) -> torch.Tensor:
    """uint8 [B,3,H,W] -> bool [B,H,W], what OpenCV's `Canny(image, low, high)` marks with 255."""
    size, ridge = ridges(*sobel(images))
    weak = ridge & (size > low)
    edges = weak & (size > high)
    while True:
        grown = grow(edges) & weak
        if torch.equal(grown, edges):
            return edges
        edges = grown


def to_bytes(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[B,3,H,W] in [0,1] -> uint8 [B,3,height,width], resized by Pillow, bicubic, to these sides."""
    pixels = (images.permute(0, 2, 3, 1).float() * 255).round().byte().cpu().numpy()
    pictures = [Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC) for p in pixels]
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)


def edge_map(images: torch.Tensor) -> torch.Tensor:
    """Photos [B,3,H,W] in [0,1] -> the same on the CPU: edges found at 512 x 512 and resized back."""
    edges = canny(to_bytes(images, DETECT, DETECT)).float()
    return to_bytes(edges[:, None].expand(-1, 3, -1, -1), *images.shape[2:]) / 255
