"""The Q-Former (BLIP-2, Li et al., ICML 2023) as BLIP-Diffusion uses it: learned queries ask an image about a
subject.

    v = ViT(style image)        x = Q-Former(16 learned queries, subject words; v)
    q = x + dense2(QuickGELU(dense1(LN(x))))                         16 vectors as wide as the text encoder's

Modules carry the released names, so `state_dict` reads and writes the release as it is.
"""

from collections import OrderedDict

import torch
from torch import nn
from transformers import Blip2QFormerConfig
from transformers.activations import QuickGELUActivation
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerEncoder

from style_transfer.blip.clip import ImageTower, sizes


class QFormer(nn.Module):
    """Image tower, Q-Former and projection: the release's folder `qformer`. `tower`: ImageTower's sizes.

    Queries see the image in layers 0, `frequency`, 2 `frequency`, ...
    """

    def __init__(
        self, width, hidden, depth, heads, queries, vocabulary, positions, projection, eps, frequency, tower
    ):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, width))
        embeddings = {
            "word_embeddings": nn.Embedding(vocabulary, width),
            "position_embeddings": nn.Embedding(positions, width),
            "LayerNorm": nn.LayerNorm(width, eps),
        }
        self.embeddings = nn.ModuleDict(embeddings)
        self.visual_encoder = ImageTower(**tower)
        config = Blip2QFormerConfig(
            **sizes(width, hidden, depth, heads, eps),
            encoder_hidden_size=tower["width"],
            cross_attention_frequency=frequency,
            use_qformer_text_input=True,  # words have a feed-forward of their own beside the queries'
        )
        self.encoder = Blip2QFormerEncoder(config)
        layers = {"LayerNorm": nn.LayerNorm(width, eps), "dense1": nn.Linear(width, projection)}
        layers |= {"activation": QuickGELUActivation(), "dense2": nn.Linear(projection, width)}
        self.proj_layer = nn.Sequential(OrderedDict(layers))

    def forward(self, images, ids, mask):
        """Normalised images [B,3,size,size], ids [B,L], mask [B,L] (0: padding) -> [B,queries,width]."""
        word, position, norm = self.embeddings.values()
        words = norm(word(ids) + position.weight[: ids.shape[1]])
        queries = norm(self.query_tokens).expand(len(ids), -1, -1)
        mask = torch.cat([mask.new_ones(queries.shape[:2]), mask], 1)[:, None, None].to(words)
        out = self.encoder(
            torch.cat([queries, words], 1),
            attention_mask=(1 - mask) * torch.finfo(mask.dtype).min,
            encoder_hidden_states=self.visual_encoder(images),
            query_length=queries.shape[1],
        )
        x = out.last_hidden_state[:, : queries.shape[1]]
        return x + self.proj_layer(x)
