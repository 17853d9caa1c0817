"""Canny's edges (IEEE PAMI 1986) of photos, as OpenCV finds them with a 3 x 3 Sobel filter and |dx| + |dy|"""

import cv2
import numpy as np
import torch
from PIL import Image

DETECT, LOW, HIGH = 512, 30, 70  # pixels, and thresholds


def canny(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B,3,H,W] -> uint8 [B,H,W], 255 at edges."""
    pictures = images.permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(np.stack([cv2.Canny(picture, LOW, HIGH) for picture in pictures]))


def to_bytes(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[B,3,H,W] in [0,1] -> uint8 [B,3,height,width], resized by Pillow, bicubic, to these sides."""
    pixels = (images.permute(0, 2, 3, 1).float() * 255).round().byte().cpu().numpy()
    pictures = [Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC) for p in pixels]
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)


def edge_map(images: torch.Tensor) -> torch.Tensor:
    """Photos [B,3,H,W] in [0,1] -> the same on the CPU: edges found at 512 x 512 and resized back."""
    edges = canny(to_bytes(images, DETECT, DETECT)).float() / 255
    return to_bytes(edges[:, None].expand(-1, 3, -1, -1), *images.shape[2:]) / 255
