"""SEOT: Get What You Want, Not What You Don't (Li et al., ICLR 2024; the code is called SuppressEOT)

No weight changes: while an image is sampled, the embedding E [L,D] of its prompt loses the target's words.
Soft-weighted regularisation (SWR) takes the rows of these words, K, and those of the end and the padding, and
shrinks what they have in common:

    E[K, n-1 ... L-1] = U diag(sigma) V'               sigma <- sigma exp(-alpha sigma)

Inference-time optimisation (ITO) then takes some gradient steps on E at each of the early timesteps:

    L = L_ret - 0.5 L_era + L_sret - 0.5 L_sera        E <- E - rate dL/dE

These are cosine distances between attention maps of the unedited and the edited prompt, small for words to
retain and large for words to erase: of the words' maps, and of the image's attention to itself where a word
shows. Here the run is only written; `intervene.py` acts when `machine_unlearning.sample` draws its images.
"""

from diffusion_model_finetuning.core.card import sizes
from evaluation.core.errors import UserError, command, early
from machine_unlearning.core import cli
from machine_unlearning.seot.levels import level_of


def parse(argv=None):
    args = cli.parse(__doc__, __file__, argv)
    s = args.settings
    if s.begin > s.end:
        raise UserError(f"begin={s.begin}: expected no more than end={s.end}, when the optimisation ends")
    if len(s.lambdas) != 4:
        raise UserError(f"lambdas={s.lambdas}: expected four numbers, of L_ret, L_era, L_sret, L_sera")
    unet = sizes(args.model, args.config, "unet", down_block_types=list, sample_size=int)
    level_of(unet, unet["sample_size"], s.map_size)
    return args


early(__name__, parse)  # before the slow imports

from evaluation.core.run import Run
from machine_unlearning.core import weights


@command
def main(argv=None):
    args = parse(argv)
    with Run(args, method="seot") as run:
        sd = weights.load_base(args, run)
        run.begin()
        weights.save_delta(run, sd, {})


if __name__ == "__main__":
    main()
