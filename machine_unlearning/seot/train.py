"""SEOT: Get What You Want, Not What You Don't (Li et al., ICLR 2024; its code is called SuppressEOT)

No weight changes: while an image is sampled, the embedding E [L,D] of its prompt loses the target's words.
Soft-weighted regularisation (SWR) shrinks what its rows K of these words and of end and padding share:

    E[K, n-1 ... L-1] = U diag(sigma) V'        sigma <- sigma exp(-alpha sigma)

Inference-time optimisation (ITO) then takes a few gradient steps at each of some early timesteps:

    L = L_ret - 0.5 L_era + L_sret - 0.5 L_sera        E <- E - rate dL/dE

Cosine distances between attention maps of the edited and the unedited prompt: small for words to retain, large
for words to erase; of the maps themselves, and of the image's attention to itself where they show a word.
Here the run is only written; `intervene.py` does the work when `machine_unlearning.sample` draws it.
"""

from evaluation.errors import command
from evaluation.records import read_record
from evaluation.run import Run
from machine_unlearning.core import cli, weights


def add_up(args) -> None:
    """To go on from a SEOT run, which changed no weight, is to start where it did, with its targets too."""
    if args.start and (earlier := read_record(args.start))["method"] == "seot":
        args.target, args.start = f"{earlier['target']},{args.target}", earlier["from"]


@command
def main(argv=None):
    args = cli.parse(__doc__, __file__, argv)
    add_up(args)
    with Run(args, method="seot") as run:
        sd = weights.load_base(args, run)
        run.begin()
        weights.save_delta(run, sd, {})


if __name__ == "__main__":
    main()
