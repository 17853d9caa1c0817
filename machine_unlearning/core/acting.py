"""The noise that an unlearned model predicts as it samples, to be differentiated: for attacks and probes"""

import torch

from diffusion_model_finetuning.core.intervention import Intervention
from diffusion_model_finetuning.core.sd import StableDiffusion, eps


def acted_eps(sd: StableDiffusion, act: Intervention, ids, plain, x, t) -> torch.Tensor:
    """Predicted noise [B,C,h,w] of latents x [B,C,h,w] at timesteps t [B], for prompts of token ids [B,L]
    whose embeddings are `plain` [B,L,D]; `act` is what the method does, as far as one noise level tells.

    It can be differentiated by the embeddings and by the weights.
    """
    text = act.text(ids, plain)
    text = act.stepless(ids, text) if act.stepless else text
    with act.around(ids, plain.detach()):
        return eps(sd.unet, x, t, text)
