"""CLIP's two transformers as BLIP-Diffusion uses them: an image tower that keeps every token, and the text
encoder of SD 1.5, which takes the Q-Former's vectors q in among its tokens.

    text = CLIP(start, "a", q_1 .. q_16, subject, ...)               each token sees those before it

Their blocks are transformers'. Modules carry the released names, so `state_dict` reads and writes the release
as it is.
"""

import torch
from torch import nn
from transformers import Blip2VisionConfig, CLIPTextConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2Encoder, Blip2VisionEmbeddings
from transformers.models.clip.modeling_clip import CLIPEncoder


def sizes(width, hidden, depth, heads, eps) -> dict:
    """As transformers' configurations name them."""
    counts = {"num_hidden_layers": depth, "num_attention_heads": heads, "layer_norm_eps": eps}
    return {"hidden_size": width, "intermediate_size": hidden, "attn_implementation": "sdpa"} | counts


class ImageTower(nn.Module):
    """CLIP's ViT without its last block, and one norm over all tokens."""

    def __init__(self, width, hidden, depth, heads, patch, positions, eps):
        super().__init__()
        self.size = round((positions - 1) ** 0.5) * patch  # pixels of an image's side
        image = {"image_size": self.size, "patch_size": patch, "hidden_act": "quick_gelu"}
        config = Blip2VisionConfig(**sizes(width, hidden, depth, heads, eps), **image)
        self.embeddings, self.encoder = Blip2VisionEmbeddings(config), Blip2Encoder(config)
        self.embeddings.patch_embedding.bias = None
        self.pre_layernorm, self.post_layernorm = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)

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
