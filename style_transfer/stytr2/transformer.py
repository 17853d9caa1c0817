"""The transformer of StyTr2: two encoders, and a decoder in which the content asks and the style answers.

The content's positions p follow from the content itself (CAPE): its grid of tokens pooled to 18 x 18, a 1x1
convolution, resized back. So a token's position says what lies around it, whatever the size of the image.

    encode   x = norm(x + attention(x + p, x + p, x))       x = norm(x + mlp(x))       the style with p = 0
    decode   x = norm(x + attention(x + p, s, s)), twice    x = norm(x + mlp(x))
"""

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.core.blocks import grid, positions

HEADS = 8
POOLED = 18  # side of the grid that CAPE pools to, also from a smaller one


class EncoderLayer(nn.TransformerEncoderLayer):
    def __init__(self, width: int, hidden: int):
        super().__init__(width, HEADS, hidden, batch_first=True)

    def forward(self, x, p):
        x = self.norm1(x + self.dropout1(self.self_attn(x + p, x + p, x, need_weights=False)[0]))
        return self.norm2(x + self._ff_block(x))


class DecoderLayer(nn.TransformerDecoderLayer):
    """Both of its attentions look at the style: `self_attn` is the released name, not what it does."""

    def __init__(self, width: int, hidden: int):
        super().__init__(width, HEADS, hidden, batch_first=True)

    def forward(self, x, p, style):
        x = self.norm1(x + self.dropout1(self.self_attn(x + p, style, style, need_weights=False)[0]))
        x = self.norm2(x + self.dropout2(self.multihead_attn(x + p, style, style, need_weights=False)[0]))
        return self.norm3(x + self._ff_block(x))


class Transformer(nn.Module):
    """Takes patches as grids [B,width,h,w] of any shape; content and style may differ in it."""

    def __init__(self, width: int = 512, hidden: int = 2048, depth: int = 3):
        super().__init__()

        def layers(kind):
            return nn.ModuleDict({"layers": nn.ModuleList(kind(width, hidden) for _ in range(depth))})

        self.encoder_c, self.encoder_s, self.decoder = map(layers, (EncoderLayer, EncoderLayer, DecoderLayer))
        self.decoder["norm"] = nn.LayerNorm(width)
        self.new_ps = nn.Conv2d(width, width, 1)

    def content_positions(self, patches: torch.Tensor) -> torch.Tensor:
        """CAPE, [B,C,h,w] -> [B,C,h,w]."""
        pooled = self.new_ps(F.adaptive_avg_pool2d(patches, POOLED))
        return F.interpolate(pooled, patches.shape[-2:], mode="bilinear", align_corners=False)

    def encode_content(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B,C,h,w] -> encoded content and its positions, both [B,C,h,w]."""
        where = self.content_positions(patches)
        x, p = positions(patches), positions(where)
        for layer in self.encoder_c["layers"]:
            x = layer(x, p)
        return grid(x, patches.shape[-2:]), where

    def encode_style(self, patches: torch.Tensor) -> torch.Tensor:
        """[B,C,h,w] -> encoded style [B,h*w,C]."""
        x = positions(patches)
        for layer in self.encoder_s["layers"]:
            x = layer(x, 0)
        return x

    def forward(self, content: torch.Tensor, where: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Encoded content and its positions [B,C,h,w], encoded style [B,N,C] -> [B,C,h,w]."""
        x, p = positions(content), positions(where)
        for layer in self.decoder["layers"]:
            x = layer(x, p, style)
        return grid(self.decoder["norm"](x), content.shape[-2:])
