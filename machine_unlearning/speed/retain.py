"""SPEED's retained rows: which of them the edit would move, noisy copies of these, and what they leave free.

Rows r pass the filter if |E r| exceeds its mean, E being the edit without protection. Copies r + z v, z
normal, go along v, where W is weakest; those whose |E (r + z v)| exceeds its mean join. With N of a row's,

    |E (r + z v)|^2 = |E r|^2 + 2 z r'E'E v + z^2 |E v|^2
    sum (r + z v)(r + z v)' = sum (1 + N) r r' + (sum z r) v' + v (sum z r)' + (sum z^2) v v'

so that no copy is made: there are ten of each of 76,000 rows.
"""

from typing import NamedTuple

import torch

CHUNK = 8192  # rows that are float64 at once


class Retained(NamedTuple):
    """The retained rows' second moment [D,D], which rows passed the filter [N], and the number of rows and
    copies that the moment is of."""

    moment: torch.Tensor
    passed: torch.Tensor
    count: int


def weakest(W):
    """[D], the right singular vector of the smallest of the min(out,D) singular values of W [out,D]."""
    v = torch.linalg.svd(W, full_matrices=False).Vh[-1]
    return v * v[v.abs().argmax()].sign()  # either sign is one: take the same everywhere


def squares(rows, E):
    """|E r|^2 of rows [N,D] -> float64 [N]."""
    if len(E) > E.shape[1]:
        E = torch.linalg.qr(E, mode="r").R  # gives the same lengths with fewer rows
    return torch.cat([(part.to(E) @ E.T).square().sum(1) for part in rows.split(CHUNK)])


def above_mean(norms, chunk: int):
    """Which of the norms [copies,N] exceed the mean of all copies of a `chunk` of rows."""
    return torch.cat([part > part.mean() for part in norms.split(chunk, dim=1)], dim=1)


def retained(rows, E, v, z, filtered: bool, chunk: int | None = None) -> Retained:
    """Of rows [N,D], the edit E [out,D] and the copies' steps z [copies,N] along v [D]; all but rows float64.

    Without `filtered`, all rows pass. `chunk`: so many of those share a mean of their copies (None: all).
    """
    energy = squares(rows, E)
    norms = energy.sqrt()
    passed = norms > norms.mean() if filtered else torch.ones_like(norms, dtype=torch.bool)
    rows, energy, z = rows[passed], energy[passed], z[:, passed]
    Ev = E @ v
    products = torch.cat([part.to(E) @ (E.T @ Ev) for part in rows.split(CHUNK)])
    copies = energy + 2 * z * products + z.square() * Ev.square().sum()  # by rounding maybe below 0
    members = above_mean(copies.clamp_min(0).sqrt(), chunk or max(1, len(rows)))
    z = z * members
    weight, step = 1 + members.sum(0).to(E), z.sum(0)

    moment = z.square().sum() * v.outer(v)
    for part, number, along in zip(rows.split(CHUNK), weight.split(CHUNK), step.split(CHUNK), strict=True):
        part = part.to(E)
        cross = (along @ part).outer(v)
        moment += (number[:, None] * part).T @ part + cross + cross.T
    count = int(weight.sum())
    return Retained(moment / max(1, count), passed, count)


def free_space(moment, threshold: float):
    """U [D,k]: directions in which the rows' mean square is below the threshold."""
    values, vectors = torch.linalg.eigh(moment)
    return vectors[:, values < threshold]
