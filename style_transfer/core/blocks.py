"""What several methods are built from: channel statistics, and attention of a content to a style.

Statistics and attention run in float32 at least, also where autocast runs the layers around them in less:
variances cancel, and logits that no 1/sqrt(d) tames are large.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn


def precise(x: torch.Tensor) -> torch.Tensor:
    """float32, or float64 if `x` has it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextlib.contextmanager
def full_precision(x: torch.Tensor):
    """What is done within, on the device of `x`, is in the precision of its tensors: neither autocast
    lowers it, nor does a GPU round the factors of products and convolutions to TF32's 10 bits, as it does
    by default."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        with torch.autocast(x.device.type, enabled=False):
            yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def mean_std(x: torch.Tensor, eps: float = 1e-5) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every channel of every sample, [B,C,H,W] -> [B,C,1,1] each; std = sqrt(unbiased variance + eps)."""
    variance, mean = torch.var_mean(precise(x), dim=(2, 3), keepdim=True)
    return mean, (variance + eps).sqrt()


def mvn(x: torch.Tensor) -> torch.Tensor:
    """Mean-variance normalisation: every channel of every sample has mean 0 and variance 1."""
    mean, std = mean_std(x)
    return (x - mean) / std


def adain(content: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Content features [B,C,H,W] with the mean and std [B,C,1,1] of a style."""
    return mvn(content) * std + mean


def positions(grid: torch.Tensor) -> torch.Tensor:
    """[B,C,h,w] -> [B,h*w,C], row by row."""
    return grid.flatten(2).transpose(1, 2)


def grid(positions: torch.Tensor, size) -> torch.Tensor:
    """[B,h*w,C] -> [B,C,h,w]; `size` is (h, w)."""
    return positions.transpose(1, 2).unflatten(2, tuple(size))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(query key^T) value, without scaling: [B,N,K], [B,M,K], [B,M,C] -> [B,N,C]."""
    with full_precision(query):
        # padded with zeros to one width, for kernels that never hold the matrix [N,M]
        width = max(query.shape[2], value.shape[2])
        inputs = (F.pad(precise(x), (0, width - x.shape[2])).unsqueeze(1) for x in (query, key, value))
        return F.scaled_dot_product_attention(*inputs, scale=1.0)[:, 0, :, : value.shape[2]]


class StyleAttention(nn.Module):
    """Every position of the content takes from the style what is at positions like it

    out(softmax(f(mvn(c)) g(mvn(s))^T) h(s)) + c
    """

    def __init__(self, width: int):
        super().__init__()
        self.f, self.g, self.h, self.out_conv = (nn.Conv2d(width, width, 1) for _ in range(4))

    def query(self, content: torch.Tensor) -> torch.Tensor:
        """[B,C,h,w] -> [B,h*w,C]."""
        return positions(self.f(mvn(content)))

    def key_value(self, style: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B,C,h,w] -> two of [B,h*w,C]."""
        return positions(self.g(mvn(style))), positions(self.h(style))

    def forward(self, content: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor):
        """Content features [B,C,h,w], what `query` made of them and `key_value` of a style -> [B,C,h,w]."""
        return content + self.out_conv(grid(attend(query, key, value), content.shape[-2:]))


def merge(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """[B,C,h,w] plus a smaller grid enlarged to its size, nearest neighbour."""
    return fine + F.interpolate(coarse, fine.shape[-2:])


def merging(width: int) -> nn.Conv2d:
    """The 3x3 convolution of the mirrored grid that follows `merge`."""
    return nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")


class TwoScales(nn.Module):
    """`StyleAttention` at relu4_1 and at relu5_1, the coarse result added to the fine one."""

    def __init__(self, width: int):
        super().__init__()
        self.sanet4_1, self.sanet5_1 = StyleAttention(width), StyleAttention(width)
        self.merge_conv = merging(width)

    def content(self, c4: torch.Tensor, c5: torch.Tensor) -> tuple:
        return c4, self.sanet4_1.query(c4), c5, self.sanet5_1.query(c5)

    def style(self, s4: torch.Tensor, s5: torch.Tensor) -> tuple:
        return *self.sanet4_1.key_value(s4), *self.sanet5_1.key_value(s5)

    def forward(self, content: tuple, style: tuple) -> torch.Tensor:
        """-> [B,width,h,w], at the size of relu4_1 of the content."""
        fine = self.sanet4_1(*content[:2], *style[:2])
        coarse = self.sanet5_1(*content[2:], *style[2:])
        return self.merge_conv(merge(fine, coarse))
