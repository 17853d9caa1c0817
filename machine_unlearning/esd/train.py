"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023)

Teaches the model, asked for the concept c, to predict the noise that guidance *away* from c gives in the
frozen model (eq. 8). There are no images: x_t is what the student itself makes of noise when asked for c.

    y = eps*(x_t,t,null) - eta (eps*(x_t,t,c) - eps*(x_t,t,null))        L = || eps_theta(x_t,t,c) - y ||^2
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli

early(__name__, cli.parse, __doc__, __file__)  # before the slow imports

import torch
import torch.nn.functional as F
from torch.func import functional_call

from diffusion_model_finetuning.core.sd import cast_frozen, ddim_grid, denoise_until, eps
from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import concepts, params, weights


def esd_target(eps_null, eps_concept, eta: float):
    """Guidance away from the concept, in the frozen model."""
    return eps_null - eta * (eps_concept - eps_null)


def esd_loss(eps_student, eps_null, eps_concept, eta: float):
    """Mean squared error to the target, which gets no gradient."""
    return F.mse_loss(eps_student, esd_target(eps_null, eps_concept, eta).detach())


def draw_times(count: int, walk: int, partial: str, generator: torch.Generator):
    """-> timesteps t [B] to train at, and entries [B] of the `walk`-step DDIM grid to denoise through.

    `exact`: t is entry k of the grid and x is at that noise level. `none`: as the official port, x is
    denoised to the end (entry 0) while t is uniform within the k-th of `walk` equal parts of the schedule.
    """
    k = torch.randint(walk, (count,), generator=generator)
    if partial == "exact":
        return torch.tensor(ddim_grid(walk))[k], k + 1
    part = 1000 // walk
    return k * part + torch.randint(part, (count,), generator=generator), torch.zeros_like(k)


@command
def main(argv=None):
    args = cli.parse(__doc__, __file__, argv)
    s = args.settings
    with Run(args, method="esd") as run:
        sd = weights.load_base(args, run)
        prompts = [concepts.say(s.prompt, target) for target in args.targets]
        text, null = sd.embed(prompts), sd.embed([""])
        student = params.trainable(sd.unet, s.scope)
        cast_frozen(sd.unet, s.precision)
        frozen = {name: weight.detach().clone() for name, weight in student.items()}
        optimizer = torch.optim.Adam(student.values(), s.lr)
        grid = ddim_grid(s.walk) if s.partial == "exact" else ddim_grid(s.walk)[:-1]  # CompVis drops the last
        shape = (s.batch, sd.unet.config.in_channels, s.size // sd.downscale, s.size // sd.downscale)
        turns = torch.arange(s.batch, device=run.device)

        for step in run.steps(s.steps):
            concept = text[(turns + step * s.batch) % len(text)]
            t, stop = draw_times(s.batch, s.walk, s.partial, run.generator)
            drawn = t, torch.randn(shape, generator=run.generator)
            t, noise = (to_device(numbers, run.device) for numbers in drawn)
            x = denoise_until(sd.unet, noise, concept, null, s.guidance, grid, sd.abar, stop)
            with torch.no_grad():
                both = {"encoder_hidden_states": torch.cat([null.expand_as(concept), concept])}
                e_null, e_concept = functional_call(
                    sd.unet, frozen, (torch.cat([x, x]), torch.cat([t, t])), both
                ).sample.chunk(2)
            loss = esd_loss(eps(sd.unet, x, t, concept), e_null, e_concept, s.eta)
            loss.backward()
            run.step(optimizer, loss=loss)
        weights.save_delta(run, sd, student)


if __name__ == "__main__":
    main()
