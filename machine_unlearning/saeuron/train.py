"""SAeUron: Sparse autoencoders for unlearning (Cywinski and Deja, ICML 2025); PER (ECCV 2026) as an option

No weight changes. A sparse autoencoder (sae.py), trained once per base model on what one block of the UNet
gives, takes each place of an image apart into few latents z. Some are much more active in the target's images
than in all others (selection.py). While images are drawn, they are turned round wherever they are more active
than usual, and what the block gives, x, changes by the difference (intervene.py):

    z'_i = gamma a_i z_i  where z_i > average_i        x' = x + D(z') - D(z)

a_i: the latent's mean in the target's images; gamma < 0. Here the run's plan is written: the latents, scales
and averages of every step of the sampler. PER (`action=replace`) puts other places of the image there.
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli
from machine_unlearning.saeuron import settings


def parse(argv=None):
    args = cli.parse(__doc__, __file__, argv)
    settings.check(args)
    return args


early(__name__, parse)  # before the slow imports

from diffusion_model_finetuning.core.sd import ddim_grid
from evaluation.core.errors import UserError
from evaluation.core.record import read_record
from evaluation.core.run import Run
from machine_unlearning.core import weights
from machine_unlearning.saeuron import plan
from machine_unlearning.saeuron.prepare import prepared
from machine_unlearning.saeuron.selection import means, planned_for, shares


def carried(args) -> list[plan.Plan]:
    """The plans of a SAeUron run that this one goes on from; UserError if they are of other steps."""
    folder = args.start and cli.acting(args.start, read_record(args.start)).get("saeuron")
    if not folder:
        return []
    plans, steps = plan.load(folder), args.settings.lookup_walk
    if any(len(earlier.timesteps) != steps for earlier in plans):
        raise UserError(f"--from {args.start}: give lookup_walk={len(plans[0].timesteps)}, as that run has")
    return plans


@command
def main(argv=None):
    args = parse(argv)
    s = args.settings
    with Run(args, method="saeuron") as run:
        sd = weights.load_base(args, run)
        plans = carried(args)
        where, files = prepared(sd, args)
        run.begin()
        for target in args.targets:
            groups, concept = settings.groups(args, target)
            of_images = [group for group in groups for _ in range(s.lookup_images)]
            found = means(files, shares(of_images, concept))
            features, gamma = settings.strength(s, target)
            plans.append(planned_for(str(target), found, features, gamma, ddim_grid(s.lookup_walk), **where))
        plan.save(run.out, plans)
        weights.save_delta(run, sd, {})


if __name__ == "__main__":
    main()
