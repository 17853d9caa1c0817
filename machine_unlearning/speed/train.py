"""SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models (Li et al., ICLR 2026)

Moves the cross-attention values W of a target's tokens c to those of its anchor's tokens a in closed form,
but only along directions U of the text space that retained prompts hardly use (`retain.py`), and never those
of invariants K: the start token and the empty prompt. There is no training.

    T = mean c c', A = mean a c'            rows of a prompt are summed, prompts are averaged
    B = U (U' T U + s I)^-1 U'
    W' = W + W (A - T) (B - B K (K' B K + lamb I)^-1 K' B)

W' - W minimises mean |W' c - W a|^2 + s |W' - W|^2 within U, and is zero on K if lamb is.
"""

from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli
from machine_unlearning.core.prompts import edit_prompts, world_prompts


def parse(argv=None):
    """-> flags and settings; the targets' prompts and their anchors."""
    args = cli.parse(__doc__, __file__, argv)
    return args, edit_prompts(args)


early(__name__, parse)  # before the slow imports

import torch
from tqdm import tqdm

from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.closed_form import last_content
from machine_unlearning.core.embeddings import cached_embeddings
from machine_unlearning.speed.retain import free_space, retained, weakest

MAPS = {"values": ["to_v"], "keys": ["to_k"], "both": ["to_k", "to_v"]}


def moments(targets, anchors):
    """Rows [n,r,D] of n prompts and of their anchors -> T and A [D,D]."""
    C, A = targets.flatten(0, 1), anchors.flatten(0, 1)
    return C.T @ C / len(targets), A.T @ C / len(targets)


def unprotected(T, A):
    """[D,D] that W is multiplied with for E, the edit with nothing retained: (A - T)(I + T)^-1."""
    eye = torch.eye(len(T)).to(T)
    return torch.linalg.solve(eye + T, (A - T).T).T  # T is symmetric


def invariants(empty, start: list[int]):
    """The columns K [D,4] of the empty prompt's rows [L,D]: its start token, and the centres of a k-means of
    the others, which starts at the rows `start` (from 1) and stops when the centres hardly move."""
    rows, centres, shift = empty[1:], empty[start], 1.0
    while shift >= 1e-4:
        nearest = torch.cdist(rows, centres).argmin(1)
        groups = [rows[nearest == i] for i in range(len(start))]
        means = [group.mean(0) if len(group) else old for group, old in zip(groups, centres, strict=True)]
        shift = (torch.stack(means) - centres).norm(dim=1).sum().square()
        centres = torch.stack(means)
    return torch.cat([empty[:1], centres]).T


def edited(W, T, A, U, K, scale: float, lamb: float):
    """W' of W [out,D]; T, A [D,D], U [D,k], K [D,4]."""
    eye = torch.eye(U.shape[1]).to(U)
    B = U @ torch.linalg.solve(U.T @ T @ U + scale * eye, U.T)
    BK = B @ K
    gram = K.T @ BK + lamb * torch.eye(K.shape[1]).to(K)
    # of invariants that depend on each other, or that the free space does not touch, nothing more is asked
    fixed = torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ BK.T
    return W + W @ (A - T) @ (B - BK @ fixed)


def token_rows(text, ends: list[int], tokens: str):
    """Rows [B,n,D] of embeddings [B,L,D]: all but the start token, or the last content tokens, at `ends`."""
    return text[:, 1:] if tokens == "all" else text[torch.arange(len(text)), ends][:, None]


def start_rows(length: int, start: str, generator: torch.Generator) -> list[int]:
    """Three of the rows 1 ... length - 1: the first, the middle and the last (`spread`), or drawn ones."""
    drawn = torch.randperm(length - 1, generator=generator)[:3] + 1
    return [1, length // 2, length - 1] if start == "spread" else drawn.tolist()


@command
def main(argv=None):
    args, anchors = parse(argv)
    s = args.settings
    with Run(args, method="speed") as run, torch.no_grad():
        sd = weights.load_base(args, run)
        prompts, kept = world_prompts(args)
        # the whole world, embedded once for all targets
        world = cached_embeddings(sd, prompts)
        # K holds what stays of the empty prompt, the first: retained as well, it would leave K no room
        rows = token_rows(world, last_content(sd, prompts), s.tokens)[[False, *kept[1:]]].flatten(0, 1)
        run.begin()
        pairs = ([*anchors], [*anchors.values()])
        T, A = moments(*(token_rows(sd.embed(p).double(), last_content(sd, p), s.tokens) for p in pairs))
        start = start_rows(world.shape[1], s.start, run.generator)
        K, shift = invariants(world[0].double(), start), unprotected(T, A)
        scale = s.retain_scale / len(args.targets)  # of T and A, each target has a share
        names = params.trainable(sd.unet, "xattn_kv")
        matrices = {name: W for name, W in names.items() if name.split(".")[-2] in MAPS[s.maps]}
        for W in tqdm(matrices.values(), f"speed {args.target}", disable=None):
            old = W.double()
            E, v = old @ shift, weakest(old)
            z = to_device(torch.randn(s.copies, len(rows), generator=run.generator), run.device).double()
            moment, passed, count = retained(rows, E, v, z, s.filter)
            U = free_space(moment, s.threshold)
            if not U.shape[1]:
                raise UserError(f"threshold={s.threshold}: leaves no direction free to edit; make it larger")
            W.copy_(edited(old, T, A, U, K, scale, s.lamb))
            change = (W - old).norm() / old.norm()
            run.note(free=U.shape[1], passed=passed.sum(), rows=count, change=change)
        weights.save_delta(run, sd, matrices)


if __name__ == "__main__":
    main()
