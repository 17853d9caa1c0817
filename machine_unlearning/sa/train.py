"""SA: Selective Amnesia (Heng and Soh, NeurIPS 2023)

Forgetting as continual learning: captions c_f that show the target are trained on images of something else,
the rest is rehearsed on images the model made itself, and weights stay near theta* where they matter.

    L = L_den(x_q, c_f) + gamma L_den(x_r, c_r) + lambda sum_i F_i (theta_i - theta*_i)^2

L_den: mean squared error of the predicted noise. x_q: surrogate images. F: Fisher information, `fisher.py`.
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli
from machine_unlearning.sa.prompts import replayed, surrogates


def parse(argv=None):
    """-> flags and settings; prompts to draw, numbers of those to rehearse; captions, and substitutes."""
    args = cli.parse(__doc__, __file__, argv)
    return args, replayed(args), surrogates(args)


early(__name__, parse)  # before the slow imports

import torch

from diffusion_model_finetuning.core.data import forever
from diffusion_model_finetuning.core.sd import cast_frozen, diffusion_loss
from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.generated import generated_moments
from machine_unlearning.sa.prepare import rehearsal


def add_ewc(student, reference, fisher, lamb: float):
    """Adds the gradient of lambda sum F (theta - theta*)^2 to .grad, and returns its value. Dicts by name.

    Done by hand, it needs no graph and no copy larger than one tensor.
    """
    total = 0.0
    for name, weight in student.items():
        moved = weight.detach() - reference[name]
        pull = fisher[name] * moved
        weight.grad.add_(pull, alpha=2 * lamb)
        total += (pull * moved).sum()
    return lamb * total


@command
def main(argv=None):
    args, (prompts, kept), (captions, instead) = parse(argv)
    s, kept = args.settings, torch.tensor(kept)
    with Run(args, method="sa") as run:
        sd = weights.load_base(args, run)
        student = params.trainable(sd.unet, s.scope)
        if s.checkpointing:
            sd.unet.enable_gradient_checkpointing()
        drawn, text, fisher = rehearsal(sd, student, prompts, s)
        surrogate = generated_moments(sd, instead, s)
        cast_frozen(sd.unet, s.precision)
        said = list(dict.fromkeys(captions))
        forget_text, said = sd.embed(said), torch.tensor([said.index(caption) for caption in captions])
        reference = {name: weight.detach().clone() for name, weight in student.items()}
        optimizer = torch.optim.AdamW(student.values(), s.lr, fused=True)
        forget_rows = forever(len(captions), s.batch, args.seed)
        replay_rows = forever(len(kept), s.batch, args.seed + 1)

        def denoise(moments, text, factor):
            """Adds the gradient of factor * L_den to .grad, and returns its value."""
            latents = sd.sample_moments(moments, run.generator)
            loss = factor * diffusion_loss(sd, latents, text, run.generator)
            loss.backward()
            return loss.detach()

        for _ in run.steps(s.steps):
            forget = replay = 0.0
            for _ in range(s.accumulate):
                a, b = next(forget_rows), kept[next(replay_rows)]
                a, caption, b = (to_device(numbers, run.device) for numbers in (a, said[a], b))
                forget += denoise(surrogate[a], forget_text[caption], 1 / s.accumulate)
                replay += denoise(drawn[b], text[b], s.gamma / s.accumulate)
            ewc = add_ewc(student, reference, fisher, s.lamb)
            run.step(optimizer, forget=forget, replay=replay, ewc=ewc)
        weights.save_delta(run, sd, student)


if __name__ == "__main__":
    main()
