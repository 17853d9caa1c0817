"""The closed form of MAST, for one sample and one level

    X, Y: content and style features, a column per point; pooled while there are more than threshold^2 points
    U_ij = 1 if i is among the k points of X most similar to j, or j among the k of Y most similar to i
    P = (X diag(U 1) X^T)^-1 X U Y^T,  U scaled to sum 1

U has at most k (n + m) ones, so it is a sparse matrix, and no n x m matrix is held at once. A picture
with fewer points than channels makes the system singular; in float64 its solution is stable all the same, as
what is undetermined in P meets no feature. Pooling to so few points would break that and is refused.
"""

import torch
import torch.nn.functional as F

from evaluation.core.errors import UserError

RIDGE = 1e-12


def pooled(features: torch.Tensor, threshold: int) -> torch.Tensor:
    """[C,H,W] -> halved until H*W <= threshold^2, or one row or column is left."""
    while features.shape[1] * features.shape[2] > threshold**2 and min(features.shape[1:]) > 1:
        features = F.avg_pool2d(features, 2)
    return features


def links(x: torch.Tensor, y: torch.Tensor, neighbours: int, rows: int = 1024):
    """Points [C,n] and [C,m] -> indices i, j of every pair with U_ij = 1, by `rows` points of x at a time."""
    (n, m), x, y = (x.shape[1], y.shape[1]), F.normalize(x, dim=0), F.normalize(y, dim=0)
    of_x, best, best_x = [], y.new_empty(m, 0), torch.empty(m, 0, dtype=torch.long, device=y.device)
    for start in range(0, n, rows):
        similarity = x[:, start : start + rows].T @ y
        count = len(similarity)
        of_x.append(similarity.topk(min(neighbours, m), 1).indices)
        value, index = similarity.T.topk(min(neighbours, count), 1)
        best, best_x = torch.cat([best, value], 1), torch.cat([best_x, index + start], 1)
        best, kept = best.topk(min(neighbours, best.shape[1]), 1)
        best_x = best_x.gather(1, kept)
    of_x = torch.arange(n, device=x.device)[:, None] * m + torch.cat(of_x)
    of_y = best_x * m + torch.arange(m, device=x.device)[:, None]
    pairs = torch.cat([of_x.flatten(), of_y.flatten()]).unique()
    return pairs // m, pairs % m


def align(content: torch.Tensor, style: torch.Tensor, neighbours: int, threshold: int) -> torch.Tensor:
    """Content [C,H,W], style [C,h,w] -> P^T content, [C,H,W]."""
    small, y = pooled(content, threshold), pooled(style, threshold).flatten(1)
    x = small.flatten(1)
    if small.shape != content.shape and x.shape[1] < len(x):
        raise UserError(f"dim_thresh={threshold}: leaves {x.shape[1]} points for {len(x)} channels; raise it")
    i, j = links(x, y, neighbours)
    x, y = x.double(), y.double()
    degree = torch.bincount(i, minlength=x.shape[1]) / len(i)
    a = (x * degree) @ x.T + RIDGE * torch.eye(len(x), dtype=x.dtype, device=x.device)
    first = torch.searchsorted(i, torch.arange(x.shape[1], device=i.device))  # pairs are in the order of i
    b = x @ F.embedding_bag(j, y.T.contiguous(), first, mode="sum") / len(i)  # X U Y^T
    p = torch.linalg.solve(a, b)
    return (p.T @ content.double().flatten(1)).view_as(content).to(content.dtype)
