"""SPM: One-dimensional Adapter to Rule Them All (Lyu et al., CVPR 2024)

Trains one rank-1 adapter ("semi-permeable membrane") per concept beside the frozen UNet's layers. Asked for
the concept c it predicts what guidance away from c gives; random pseudo-prompts a_i should pass it unchanged.

    L = || eps(x_t,c) - [eps*(x_t,null) - eta (eps*(x_t,c) - eps*(x_t,null))] ||^2
        + lamb mean_i || eps(x_t,a_i) - eps*(x_t,a_i) ||^2

While images are sampled the adapter is scaled by the likeness of prompt and concept: see intervene.py.
"""

from evaluation.core.errors import UserError, command, early
from evaluation.core.record import read_record
from machine_unlearning.core import cli, concepts


def parse(argv=None):
    """-> flags and settings; the targets' prompts."""
    args = cli.parse(__doc__, __file__, argv)
    s = args.settings
    if s.empty >= s.anchors:
        raise UserError(f"empty={s.empty}: expected fewer than anchors={s.anchors}; some are random")
    if min(s.sides) * s.size < 8:
        raise UserError(f"sides={s.sides}: expected shares that leave 8 of size={s.size} pixels")
    return args, [concepts.say(s.prompt, target, s.underscores) for target in args.targets]


early(__name__, parse)  # before the slow imports

import math

import torch
import torch.nn.functional as F

from diffusion_model_finetuning.core.sd import cast_frozen, ddim_grid, denoise_until, eps
from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import weights
from machine_unlearning.spm import adapters


def erase_loss(eps_concept, frozen_null, frozen_concept, eta: float):
    """The concept's prediction should be what guidance away from it gives in the frozen model."""
    return F.mse_loss(eps_concept, frozen_null - eta * (frozen_concept - frozen_null))


def anchor_loss(eps_anchors, frozen_anchors, shares):
    """Predictions [A,B,C,h,w] of A anchors should stay as they were; an anchor counts by its share [A]."""
    return shares @ (eps_anchors - frozen_anchors).pow(2).flatten(1).mean(1)


def draw_anchors(count: int, concept, generator: torch.Generator):
    """Pseudo-prompts [count,L,D]: Gaussian directions at 0.8 to 1.2 times the norm of the concept [L,D].

    A direction is kept with probability 1 - its cosine with the concept, so unlike ones are likelier.
    """
    anchors = []
    while len(anchors) < count:
        z = torch.randn(concept.shape, generator=generator)
        likeness = F.cosine_similarity(z.flatten(), concept.flatten(), dim=0)
        if torch.rand((), generator=generator) < 1 - likeness:
            scale = 0.8 + 0.4 * torch.rand((), generator=generator)
            anchors.append(scale * concept.norm() * z / z.norm())
    return torch.stack(anchors)


def times(k, walk: int, timestep: str):
    """-> the ascending `walk`-step DDIM grid, and where to train after k [B] of its steps: timesteps [B].

    `exact`: the noise level x then has. `shifted`: as the official code, 33 to 42 timesteps noisier.
    """
    if timestep == "exact":
        return ddim_grid(walk), torch.tensor(ddim_grid(walk))[walk - k - 1]
    return [t - 1 for t in ddim_grid(walk)], 999 - k * 1000 // walk


def draw_noise(sd, s, generator: torch.Generator):
    """[B,C,h,w] for latents whose height and width are drawn from the shares `sides` of `size` pixels."""
    sides = [round(s.size * share / sd.downscale) for share in s.sides]
    height, width = (sides[i] for i in torch.randint(len(sides), (2,), generator=generator))
    return torch.randn(s.batch, sd.unet.config.in_channels, height, width, generator=generator)


def rate(step: int, steps: int, warmup: int, cycles: int) -> float:
    """Learning rate as a share of its peak: linear warm-up, then `cycles` cosines from 1 to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (cycles * (step - warmup) / (steps - warmup) % 1)))


def predict(unet, x, t, texts):
    """Noise [R,B,C,h,w] of the same latents x [B,C,h,w] at t [B] under each of R prompts [R,L,D]."""
    rows, batch = len(texts), len(x)
    e = eps(unet, x.repeat(rows, 1, 1, 1), t.repeat(rows), texts.repeat_interleave(batch, dim=0))
    return e.unflatten(0, (rows, batch))


def carried(args, unet, prompts: list[str]) -> list[adapters.Adapters]:
    """The adapters of an SPM run that this one goes on from; UserError for what cannot stand side by side."""
    s, earlier = args.settings, []
    if args.start and (folder := cli.acting(args.start, read_record(args.start)).get("spm")):
        earlier = [adapters.load(folder, unet)]
        rank, alpha = earlier[0].rank, earlier[0].alpha
        if (rank, alpha) != (s.rank, s.alpha):
            raise UserError(f"--from {args.start}: its adapters need the settings rank={rank} alpha={alpha}")
    every = [*(prompt for part in earlier for prompt in part.prompts), *prompts]
    if twice := [prompt for prompt in prompts if every.count(prompt) > 1]:
        raise UserError(f"--target {args.target}: {twice[0]!r} would have two adapters; name it once")
    return earlier


@command
def main(argv=None):
    args, prompts = parse(argv)
    s = args.settings
    with Run(args, method="spm") as run:
        sd = weights.load_base(args, run)
        earlier = carried(args, sd.unet, prompts)
        embedded, null = sd.embed(prompts), sd.embed([""])
        new = [adapters.create(sd.unet, prompt, s.rank, s.alpha, run.generator) for prompt in prompts]
        trained = [factor for part in new for pair in part.factors.values() for factor in pair]
        optimizer = torch.optim.AdamW(trained, s.lr, fused=True)
        cast_frozen(sd.unet, s.precision)
        on = torch.ones(1, 1, 1, device=run.device)
        concepts_on_cpu = embedded.cpu()  # where anchors are drawn
        # rows: the empty prompt, which may serve as an anchor too, random anchors, the concept
        shares = torch.tensor([s.empty] + [1] * (s.anchors - s.empty), device=run.device) / s.anchors
        first = 0 if s.empty else 1

        for step in run.steps(s.steps * len(new)):
            turn, n = divmod(step, len(new))
            optimizer.param_groups[0]["lr"] = s.lr * rate(turn, s.steps, s.warmup, s.cycles)
            k = torch.randint(1, s.walk, (s.batch,), generator=run.generator)
            grid, t = times(k, s.walk, s.timestep)
            noise = draw_noise(sd, s, run.generator)
            drawn = noise, t, draw_anchors(s.anchors - s.empty, concepts_on_cpu[n], run.generator)
            noise, t, anchors = (to_device(numbers, run.device) for numbers in drawn)
            concept = embedded[n : n + 1]
            rows = torch.cat([null, anchors, concept])
            with adapters.applied(sd.unet, new[n], on):
                text = concept.expand(s.batch, -1, -1)
                x = denoise_until(sd.unet, noise, text, null, s.guidance, grid, sd.abar, s.walk - k)
                e = predict(sd.unet, x, t, rows[first:])
            with torch.no_grad():
                frozen = predict(sd.unet, x, t, rows)
            erase = erase_loss(e[-1], frozen[0], frozen[-1], s.eta)
            anchor = anchor_loss(e[:-1], frozen[first:-1], shares[first:])
            loss = erase + s.lamb * anchor
            loss.backward()
            run.step(optimizer, loss=loss, erase=erase, anchor=anchor)
        adapters.save(run.out, adapters.compose([*earlier, *new]))
        weights.save_delta(run, sd, {})


if __name__ == "__main__":
    main()
