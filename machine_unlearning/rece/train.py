"""RECE: Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models (Gong et al., ECCV 2024)

After UCE (`core/closed_form.py`), other embeddings c' may still give, through the edited key and value maps
Wn of cross-attention, what the concept's tokens c gave through the original ones Wo. The closest are

    c' = argmin sum |Wn c' - Wo c|^2 + r |c'|^2 = (r I + sum Wn'Wn)^-1 (sum Wn'Wo) c

over all maps. An epoch derives them and sends them, by UCE's step from Wn, where a guide's tokens go. There
is no training and no image: the original keeps the epoch after which a detector sees least, this the last.
"""

from evaluation.core.errors import command, early, refused
from machine_unlearning.core import cli
from machine_unlearning.core.prompts import edit_prompts, world_prompts


def parse(argv=None):
    """-> flags and settings; prompts to erase and their guides, of the UCE stage."""
    args = cli.parse(__doc__, __file__, argv)
    return args, edit_prompts(args)


early(__name__, parse)  # before the slow imports

import torch
from tqdm import tqdm

from evaluation.core.run import Run
from machine_unlearning.core import concepts, params, weights
from machine_unlearning.core.closed_form import Pair, edit_pairs, edited, gram
from machine_unlearning.core.embeddings import cached_embeddings


def products(current, originals):
    """G = sum Wn'Wn and X = sum Wn'Wo [D,D] over all maps [out,D]."""
    return sum(Wn.T @ Wn for Wn in current), sum(Wn.T @ Wo for Wn, Wo in zip(current, originals, strict=True))


def derived(c, G, X, ridge: float, regularizer: str = "zero", guide=None):
    """The embedding [n,D] that gives now what the tokens c [n,D] gave: it minimises sum |Wn c' - Wo c|^2 and
    `ridge` times

    zero: |c'|^2.  embedding: |c' - c|^2.  output: sum |Wn (c' - c)|^2.  output+embedding: both.
    target: |c' - guide|^2, of a guide's tokens [n,D].
    """
    eye = ridge * torch.eye(len(G)).to(G)
    left, right = {
        "zero": (G + eye, X),
        "target": (G + eye, X),
        "embedding": (G + eye, X + eye),
        "output": ((1 + ridge) * G, X + ridge * G),
        "output+embedding": ((1 + ridge) * G + eye, X + eye + ridge * G),
    }[regularizer]
    wanted = right @ c.T + (ridge * guide.T if regularizer == "target" else 0)
    with refused(f"derive_ridge={ridge}: too small for one solution", torch.linalg.LinAlgError):
        return torch.linalg.solve(left, wanted).T


def concept_names(targets) -> list[str]:
    """What the derivation starts from: the targets' bare names, of a pair `Cats in Van Gogh style`."""
    wording = {"style": "{style}", "object": "{object}", "pair": "{object} in {style} style"}
    return [concepts.say(wording[target.kind], target) for target in targets]


@command
def main(argv=None):
    args, guides = parse(argv)
    s = args.settings
    with Run(args, method="rece") as run, torch.no_grad():
        sd = weights.load_model(args, run)
        matrices = params.trainable(sd.unet, "xattn_kv")
        originals = [W.double() for W in matrices.values()]  # also with --from: what all concepts once gave
        weights.begin(sd, args)
        prompts, kept = world_prompts(args)
        # the whole world, embedded once for all targets
        rows = cached_embeddings(sd, prompts)[kept]
        run.begin()
        keep, pairs = gram(rows.flatten(0, 1)), edit_pairs(sd, guides, "all")
        scales = s.lamb, s.erase_scale, max(s.preserve_scale, 1 / len(rows))
        current = [edited(W.double(), pairs, keep, *scales, s.technique) for W in matrices.values()]

        names = concept_names(dict.fromkeys(args.forgotten))
        concept_rows, away = sd.embed(names).double(), sd.embed([s.epoch_guide])[0].double()
        scales = s.epoch_lamb, s.epoch_erase_scale, s.epoch_preserve_scale
        for _ in tqdm(range(s.epochs), f"rece {args.target}", disable=None):
            G, X = products(current, originals)
            pairs = [Pair(derived(c, G, X, s.derive_ridge, s.regularizer, away), away) for c in concept_rows]
            run.note(norm=torch.cat([pair.edit for pair in pairs]).norm(dim=1).mean())
            current = [edited(W, pairs, keep, *scales, s.technique) for W in current]
        for W, new in zip(matrices.values(), current, strict=True):
            W.copy_(new)
        weights.save_delta(run, sd, matrices)


if __name__ == "__main__":
    main()
