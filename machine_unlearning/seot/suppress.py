"""SEOT's formulas on plain tensors: soft-weighted regularisation (SWR), and the loss of ITO.

Attention maps are A [B,Q,L], how much each of Q queries (a square grid of the image) looks at each of L words
of the prompt, and S [B,Q,Q], how much it looks at each position of the image.
"""

import torch
import torch.nn.functional as F


def swr(text, positions: list[int], count: int, alpha: float):
    """The embedding [L,D] of a prompt with its target words, its end and its padding all but erased.

    `positions` are the target's tokens, `count` the prompt's with start and end, so that the first
    end-of-text row is count - 1. Large singular values of these rows carry the content: sigma becomes
    sigma exp(-alpha sigma), at most 1 / (e alpha).

    That is a product with V exp(-alpha sigma) V', which is held constant where this is differentiated by
    `text`: a derivative of singular vectors is infinite where two singular values are alike.
    """
    rows = [*positions, *range(count - 1, len(text))]
    _, sigma, V = torch.linalg.svd(text[rows].detach().double(), full_matrices=False)
    shrunk = text[rows].double() @ (V.mT * (-alpha * sigma).exp()) @ V
    text = text.clone()
    text[rows] = shrunk.to(text.dtype)
    return text


def word_masks(A, erase):
    """Where the image shows each word: bool [B,Q,L].

    A map [Q] is enlarged to 256 x 256; what exceeds 0.85 of its peak (0.95 for words not in `erase` [B,L])
    is shown, and so is every position of the map whose centre touches that.
    """
    side = round(A.shape[1] ** 0.5)
    large = F.interpolate(A.mT.unflatten(-1, (side, side)), size=256, mode="bilinear")
    share = torch.where(erase, 0.85, 0.95)[..., None, None]
    shown = (large > share * large.amax((-2, -1), keepdim=True)).to(A.dtype)
    return F.interpolate(shown, size=side, mode="bilinear").gt(0).flatten(2).mT


def ito_terms(A, S, shown, A_new, S_new, erase, retain):
    """L_ret, L_era, L_sret, L_sera, each [B], of new maps against the unedited prompt's A and S.

    Words to `erase` and to `retain` are bool [B,L], `shown` is `word_masks` of A. The first two are cosine
    distances of words' maps, the others of the attention paid to the positions that show these words.
    """
    word = 1 - F.cosine_similarity(A, A_new, dim=1)
    position = 1 - F.cosine_similarity(S, S_new, dim=1)
    image = torch.einsum("bql,bq->bl", shown.to(position.dtype), position)
    return [(part * words).sum(1) for part in (word, image) for words in (retain, erase)]


def ito_loss(terms, lambdas):
    """[B]: 1 L_ret - 0.5 L_era + 1 L_sret - 0.5 L_sera with the paper's `lambdas`."""
    return sum(factor * term for factor, term in zip(lambdas, terms, strict=True))
