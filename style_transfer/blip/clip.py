"""CLIP's two transformers as BLIP-Diffusion uses them: an image tower that keeps every token, and the text
encoder of SD 1.5, which takes the Q-Former's vectors q in among its tokens.

    text = CLIP(start, "a", q_1 .. q_16, subject, ...)               each token sees those before it

Modules carry the released names, so `state_dict` reads and writes the release as it is.
"""

import torch
import torch.nn.functional as F
from torch import nn


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def attend(q, k, v, heads: int, mask=None, causal=False):
    """Attention of q [B,N,D] to k, v [B,M,D] in `heads` heads; `mask` [B,M]: True for a token."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = None if mask is None else mask[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2)


class ImageAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        return self.projection(attend(*self.qkv(x).chunk(3, dim=-1), self.heads))


class TextAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=True))


class Block(nn.Module):
    """CLIP's transformer block: norms come first."""

    def __init__(self, attention, width, hidden, eps):
        super().__init__()
        self.self_attn = attention
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp["fc2"](quick_gelu(self.mlp["fc1"](self.layer_norm2(x))))


def blocks(attention, depth, width, heads, hidden, eps):
    layers = nn.ModuleList(Block(attention(width, heads), width, hidden, eps) for _ in range(depth))
    return nn.ModuleDict({"layers": layers})


class ImageEmbeddings(nn.Module):
    def __init__(self, width, patch, positions):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embedding = nn.Parameter(torch.zeros(1, positions, width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)

    def forward(self, images):
        patches = self.patch_embedding(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), -1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding


class ImageTower(nn.Module):
    """CLIP's ViT without its last block, and one norm over all tokens."""

    def __init__(self, width, hidden, depth, heads, patch, positions, eps):
        super().__init__()
        self.embeddings = ImageEmbeddings(width, patch, positions)
        self.pre_layernorm, self.post_layernorm = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.encoder = blocks(ImageAttention, depth, width, heads, hidden, eps)

    @property
    def size(self) -> int:
        """Pixels of an image's side."""
        patches = self.embeddings.position_embedding.shape[1] - 1
        return round(patches**0.5) * self.embeddings.patch_embedding.kernel_size[0]

    def forward(self, images):
        """Normalised images [B,3,size,size] -> tokens [B,1+patches,width]."""
        x = self.pre_layernorm(self.embeddings(images))
        for block in self.encoder["layers"]:
            x = block(x)
        return self.post_layernorm(x)


class ContextText(nn.Module):
    """SD 1.5's text encoder, which takes vectors in among its tokens: the release's folder `text_encoder`."""

    def __init__(self, width, hidden, depth, heads, vocabulary, positions, eps):
        super().__init__()
        embeddings = {
            "token_embedding": nn.Embedding(vocabulary, width),
            "position_embedding": nn.Embedding(positions, width),
        }
        self.text_model = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict(embeddings),
                "encoder": blocks(TextAttention, depth, width, heads, hidden, eps),
                "final_layer_norm": nn.LayerNorm(width, eps),
            }
        )

    @property
    def positions(self) -> int:
        return self.text_model["embeddings"]["position_embedding"].num_embeddings

    def forward(self, ids, context=None, begin: int = 0):
        """ids [B,L], vectors [B,Q,width] to put before token `begin` -> last hidden state [B,L+Q,width]."""
        embeddings = self.text_model["embeddings"]
        x = embeddings["token_embedding"](ids)
        if context is not None:
            x = torch.cat([x[:, :begin], context.to(x), x[:, begin:]], 1)
        x = x + embeddings["position_embedding"].weight[: x.shape[1]]
        for block in self.text_model["encoder"]["layers"]:
            x = block(x)
        return self.text_model["final_layer_norm"](x)
