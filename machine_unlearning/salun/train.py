"""SalUn: Saliency Unlearning (Fan et al., ICLR 2024)

Images to forget, under the forgotten prompt c, should be denoised as under a substitute prompt c'; images to
keep keep their denoising loss. Only salient weights move: gradients are multiplied by the mask M of mask.py.

    L = || eps_theta(x_t,t,c) - sg eps_theta(x_t,t,c') ||^2 + alpha L_den(retain)        g <- M * grad L
"""

from evaluation.core.errors import command, early
from machine_unlearning.core import cli

early(__name__, cli.parse_with_substitutes, __doc__, __file__)  # before the slow imports

from itertools import islice

import torch
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import cast_frozen
from evaluation.core.run import Run
from machine_unlearning.core import params, weights
from machine_unlearning.core.forget import denoising_loss, relabelling_loss, streams
from machine_unlearning.salun.mask import saliency_mask


def salun_loss(forgetting, retaining, alpha: float):
    return forgetting + alpha * retaining


@command
def main(argv=None):
    args = cli.parse_with_substitutes(__doc__, __file__, argv)
    s = args.settings
    with Run(args, method="salun") as run:
        sd = weights.load_base(args, run)
        if s.checkpointing:
            sd.unet.enable_gradient_checkpointing()
        pairs = zip(*streams(sd, args, run.generator))
        mask = None
        if s.mask_share < 1:
            batches = tqdm(islice(pairs, s.mask_steps), "mask", s.mask_steps, disable=None)
            images = (forget for forget, _ in batches)
            scope = "full" if s.mask_full else s.scope
            mask = saliency_mask(sd.unet, images, sd.embed([""]), s.mask_guidance, s.mask_share, scope)
        trained = params.trainable(sd.unet, s.scope)
        if mask:
            run.note(**params.coverage(trained, mask))
        cast_frozen(sd.unet, s.precision)
        optimizer = torch.optim.Adam(trained.values(), s.lr, fused=True)

        for _, (forget, retain) in zip(run.steps(s.steps), pairs):
            forgetting, retaining = relabelling_loss(sd.unet, forget), denoising_loss(sd.unet, retain)
            loss = salun_loss(forgetting, retaining, s.alpha)
            loss.backward()
            if mask:
                params.mask_gradients(trained, mask)
            run.step(optimizer, loss=loss, forget=forgetting, retain=retaining)
        weights.save_delta(run, sd, trained)


if __name__ == "__main__":
    main()
