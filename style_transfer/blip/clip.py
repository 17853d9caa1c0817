"""CLIP's two transformers as BLIP-Diffusion uses them: an image tower that keeps every token, and the text
encoder of SD 1.5, which takes the Q-Former's vectors q in among its tokens.

    text = CLIP(start, "a", q_1 .. q_16, subject, ...)               each token sees those before it

Their blocks are transformers'. Modules carry the released names, so `state_dict` reads and writes the release
as it is.
"""

import torch
from torch import nn
from transformers import Blip2VisionConfig, CLIPTextConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2Encoder
from transformers.models.clip.modeling_clip import CLIPEncoder


def sizes(width, hidden, depth, heads, eps) -> dict:
    """As transformers' configurations name them."""
    counts = {"num_hidden_layers": depth, "num_attention_heads": heads, "layer_norm_eps": eps}
    return {"hidden_size": width, "intermediate_size": hidden, "attn_implementation": "sdpa"} | counts


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
        config = Blip2VisionConfig(**sizes(width, hidden, depth, heads, eps), hidden_act="quick_gelu")
        self.encoder = Blip2Encoder(config)

    @property
    def size(self) -> int:
        """Pixels of an image's side."""
        patches = self.embeddings.position_embedding.shape[1] - 1
        return round(patches**0.5) * self.embeddings.patch_embedding.kernel_size[0]

    def forward(self, images):
        """Normalised images [B,3,size,size] -> tokens [B,1+patches,width]."""
        x = self.encoder(self.pre_layernorm(self.embeddings(images))).last_hidden_state
        return self.post_layernorm(x)


class ContextText(nn.Module):
    """SD 1.5's text encoder, which takes vectors in among its tokens: the release's folder `text_encoder`."""

    def __init__(self, width, hidden, depth, heads, vocabulary, positions, eps):
        super().__init__()
        embeddings = {
            "token_embedding": nn.Embedding(vocabulary, width),
            "position_embedding": nn.Embedding(positions, width),
        }
        encoder = CLIPEncoder(CLIPTextConfig(**sizes(width, hidden, depth, heads, eps)))
        parts = {"embeddings": nn.ModuleDict(embeddings), "encoder": encoder}
        self.text_model = nn.ModuleDict(parts | {"final_layer_norm": nn.LayerNorm(width, eps)})

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
        later = x.new_full((x.shape[1], x.shape[1]), float("-inf")).triu(1)  # which no token sees
        x = self.text_model["encoder"](x, attention_mask=later[None, None]).last_hidden_state
        return self.text_model["final_layer_norm"](x)
