"""The reversible network of ArtFlow: a Glow without splits, with additive couplings

    y = actnorm(x)         scale (x + loc)
    y = W x                W = P (L + I) (U + diag(sign exp(s))), at every pixel
    y = [a, b + net(a)]    of the halves a, b of the channels

Every step is undone exactly, so images come back from their latents without a decoder.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.core.blocks import full_precision


class ActNorm(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    @torch.no_grad()
    def initialise(self, x: torch.Tensor) -> None:
        """Makes every channel of these samples [B,C,H,W] have mean 0 and variance 1."""
        std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
        self.loc.copy_(-mean)
        self.scale.copy_(1 / (std + 1e-6))
        self.initialized.fill_(1)

    def forward(self, x):
        return self.scale * (x + self.loc)

    def reverse(self, y):
        return y / self.scale - self.loc


class InvertibleConvolution(nn.Module):
    """Starts as a random rotation of the channels."""

    def __init__(self, channels: int):
        super().__init__()
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels))
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.w_l, self.w_u = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.w_s = nn.Parameter(upper.diag().abs().log())
        ones = torch.ones(channels, channels)
        self.w_p, self.s_sign = nn.Buffer(permutation), nn.Buffer(upper.diag().sign())
        self.u_mask, self.l_mask = nn.Buffer(ones.triu(1)), nn.Buffer(ones.tril(-1))
        self.l_eye = nn.Buffer(torch.eye(channels))

    def matrix(self) -> torch.Tensor:
        """[C,C]."""
        lower = self.w_l * self.l_mask + self.l_eye
        return self.w_p @ lower @ (self.w_u * self.u_mask + torch.diag(self.s_sign * self.w_s.exp()))

    def forward(self, x):
        with full_precision(x):
            return F.conv2d(x, self.matrix()[:, :, None, None])

    def reverse(self, y):
        with full_precision(y):
            return F.conv2d(y, self.matrix().inverse()[:, :, None, None])


class LastConvolution(nn.Module):
    """Starts as zero. Its border is of ones."""

    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3)
        self.scale = nn.Parameter(torch.zeros(1, outer, 1, 1))
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x):
        return self.conv(F.pad(x, (1, 1, 1, 1), value=1.0)) * (3 * self.scale).exp()


class Coupling(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        half = channels // 2
        self.net = nn.Sequential(
            nn.Conv2d(half, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            LastConvolution(hidden, half),
        )

    def forward(self, x):
        a, b = x.chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)

    def reverse(self, y):
        a, b = y.chunk(2, 1)
        return torch.cat([a, b - self.net(a)], 1)


class Reversible(nn.Sequential):
    """Steps one after the other, which are undone from the last to the first."""

    def reverse(self, y):
        for step in reversed(self):
            y = step.reverse(y)
        return y


def flow(channels: int, hidden: int) -> Reversible:
    steps = ActNorm(channels), InvertibleConvolution(channels), Coupling(channels, hidden)
    return Reversible(OrderedDict(zip(("actnorm", "invconv", "coupling"), steps)))


class Block(nn.Module):
    """Trades half the height and width for four times the channels, then mixes."""

    def __init__(self, channels: int, flows: int, hidden: int):
        super().__init__()
        self.flows = Reversible(*(flow(4 * channels, hidden) for _ in range(flows)))

    def forward(self, x):
        return self.flows(F.pixel_unshuffle(x, 2))

    def reverse(self, y):
        return F.pixel_shuffle(self.flows.reverse(y), 2)

    def initialise(self, x):
        x = F.pixel_unshuffle(x, 2)
        for flow in self.flows:
            flow.actnorm.initialise(x)
            x = flow(x)
        return x
