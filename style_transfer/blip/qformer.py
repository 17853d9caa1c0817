"""The Q-Former (BLIP-2, Li et al., ICML 2023) as BLIP-Diffusion uses it: learned queries ask an image about a
subject.

    v = ViT(style image)        x = Q-Former(16 learned queries, subject words; v)
    q = x + dense2(QuickGELU(dense1(LN(x))))                         16 vectors as wide as the text encoder's

Modules carry the released names, so `state_dict` reads and writes the release as it is.
"""

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.blip.clip import ImageTower, attend, quick_gelu


class AddNorm(nn.Module):
    """LayerNorm(dense(y) + x)"""

    def __init__(self, source, width, eps):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(source, width), nn.LayerNorm(width, eps)

    def forward(self, y, x):
        return self.LayerNorm(self.dense(y) + x)


class QFormerAttention(nn.Module):
    def __init__(self, width, source, heads, eps):
        super().__init__()
        self.heads = heads
        sizes = {"query": width, "key": source, "value": source}
        self.attention = nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})
        self.output = AddNorm(width, width, eps)

    def forward(self, x, source, mask=None):
        query, key, value = (self.attention[name] for name in ("query", "key", "value"))
        return self.output(attend(query(x), key(source), value(source), self.heads, mask), x)


class QFormerLayer(nn.Module):
    """BERT's layer. All attend to all; then queries see the image, whose tokens are `source` wide, and have a
    feed-forward of their own. With `source` None they do not see it here.
    """

    def __init__(self, width, source, hidden, heads, eps):
        super().__init__()
        self.attention = QFormerAttention(width, width, heads, eps)
        self.crossattention = QFormerAttention(width, source, heads, eps) if source else None
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output, self.output_query = AddNorm(hidden, width, eps), AddNorm(hidden, width, eps)

    def forward(self, queries, words, image, mask):
        x = torch.cat([queries, words], 1)
        queries, words = self.attention(x, x, mask).split([queries.shape[1], words.shape[1]], 1)
        if self.crossattention:
            queries = self.crossattention(queries, image)
        queries = self.output_query(F.gelu(self.intermediate_query["dense"](queries)), queries)
        return queries, self.output(F.gelu(self.intermediate["dense"](words)), words)


class Projection(nn.Module):
    """x + dense2(QuickGELU(dense1(LayerNorm(x))))"""

    def __init__(self, width, hidden, eps):
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.LayerNorm = nn.LayerNorm(width, eps)

    def forward(self, x):
        return x + self.dense2(quick_gelu(self.dense1(self.LayerNorm(x))))


class QFormer(nn.Module):
    """Image tower, Q-Former and projection: the release's folder `qformer`. `tower`: ImageTower's sizes.

    Queries see the image in layers 0, `frequency`, 2 `frequency`, ...
    """

    def __init__(
        self, width, hidden, depth, heads, queries, vocabulary, positions, projection, eps, frequency, tower
    ):
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, width))
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, width),
                "position_embeddings": nn.Embedding(positions, width),
                "LayerNorm": nn.LayerNorm(width, eps),
            }
        )
        self.visual_encoder = ImageTower(**tower)
        sources = [None if layer % frequency else tower["width"] for layer in range(depth)]
        layers = [QFormerLayer(width, source, hidden, heads, eps) for source in sources]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.proj_layer = Projection(width, projection, eps)

    def forward(self, images, ids, mask):
        """Normalised images [B,3,size,size], ids [B,L], mask [B,L] (0: padding) -> [B,queries,width]."""
        word, position, norm = (
            self.embeddings[n] for n in ("word_embeddings", "position_embeddings", "LayerNorm")
        )
        words = norm(word(ids) + position.weight[: ids.shape[1]])
        queries = norm(self.query_tokens).expand(len(ids), -1, -1)
        mask = torch.cat([mask.new_ones(queries.shape[:2]), mask], 1).bool()
        image = self.visual_encoder(images)
        for layer in self.encoder["layer"]:
            queries, words = layer(queries, words, image, mask)
        return self.proj_layer(queries)
