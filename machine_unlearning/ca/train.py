"""CA: Ablating Concepts in Text-to-Image Diffusion Models (Kumari et al., ICCV 2023)

Asked for the target c, the model learns to predict what it predicts for an anchor c*: a sentence that has
something else in the target's place. x_t is noise on images that the model made of c*.

    y = eps_theta(x_t,t,c*), no gradient        L = mean_i sum m (eps_theta(x_t,t,c) - y)^2 / sum m

m: a mask of one channel. The noise-based objective has y = eps, the noise in x_t.
"""

from evaluation.core.errors import command, early
from machine_unlearning.ca.prompts import caption_rows
from machine_unlearning.core import cli


def parse(argv=None):
    """-> flags and settings; rows of captions."""
    args = cli.parse(__doc__, __file__, argv)
    return args, caption_rows(args)


early(__name__, parse)  # before the slow imports

from itertools import chain

import torch
from torch import nn

from diffusion_model_finetuning.core.data import forever
from diffusion_model_finetuning.core.sd import cast_frozen, draw_noise, eps
from evaluation.core.environment import to_device
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.generated import generated_moments


def ca_loss(predicted, y, mask):
    """Squared error [B,C,h,w] summed where mask [B,1,h,w] is 1, over the mask's sum; mean of the batch.

    With a mask of ones this is C times the mean squared error. y gets no gradient.
    """
    error = mask * (predicted - y.detach()) ** 2
    return (error.sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()


def detach_start_token(unet: nn.Module) -> None:
    """From now on no gradient passes through keys and values of token 0, which is the same in all prompts."""

    def detach(module, inputs, output):
        return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)

    for name, module in unet.named_modules():
        if name.endswith((".attn2.to_k", ".attn2.to_v")):
            module.register_forward_hook(detach)


def embedded(sd, rows):
    """-> text [M,L,D] of all captions; numbers [N,1+V] in it of each row's anchor and V target captions."""
    captions = [[anchor, *said] for anchor, said in rows]
    number = {caption: i for i, caption in enumerate(dict.fromkeys(chain(*captions)))}
    return sd.embed([*number]), torch.tensor([[number[caption] for caption in row] for row in captions])


@command
def main(argv=None):
    args, rows = parse(argv)
    s = args.settings
    with Run(args, method="ca") as run:
        sd = weights.load_base(args, run)
        moments = generated_moments(sd, [anchor for anchor, _ in rows], s, flip=True)
        text, number = embedded(sd, rows)
        student = params.trainable(sd.unet, s.scope)
        cast_frozen(sd.unet, s.precision)
        detach_start_token(sd.unet)
        if s.checkpointing:
            sd.unet.enable_gradient_checkpointing()
        optimizer = torch.optim.AdamW(student.values(), s.lr, fused=True)

        for _, row in zip(run.steps(s.steps), forever(len(rows), s.batch, args.seed)):
            mirrored = torch.randint(2, (s.batch,), generator=run.generator)
            said = torch.randint(1, number.shape[1], (s.batch,), generator=run.generator)
            drawn = number[row, said], number[row, 0], row + len(rows) * mirrored
            target, anchor, image = (to_device(numbers, run.device) for numbers in drawn)
            target, anchor = text[target], text[anchor]
            x0 = sd.sample_moments(moments[image], run.generator)
            t, noise = (to_device(drawn, run.device) for drawn in draw_noise(sd, x0, run.generator))
            x, mask = sd.add_noise(x0, noise, t), torch.ones_like(x0[:, :1])
            with torch.no_grad():
                y = noise if s.noise_based else eps(sd.unet, x, t, anchor)
            loss = ca_loss(eps(sd.unet, x, t, target), y, mask)
            if s.prior:
                loss = loss + s.prior * ca_loss(eps(sd.unet, x, t, anchor), noise, mask)
            loss.backward()
            run.step(optimizer, loss=loss)
        weights.save_delta(run, sd, student)


if __name__ == "__main__":
    main()
