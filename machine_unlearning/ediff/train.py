"""EDiff: EraseDiff (Wu et al., CVPR 2025)

Keeps the loss f on images to keep low, subject to the forgetting loss g being at the value v that training on g
alone attains. f is the denoising loss; g asks that images to forget, under the forgotten prompt c, are
denoised as under a substitute prompt c'. A step goes along

    grad f + lambda grad (g - v)         g = || eps_theta(x_t,t,c) - sg eps_theta(x_t,t,c') ||^2

lambda makes every step reduce g (`bome`): <step, q> >= eta |q|^2 with q = grad g; or it is a constant.
"""

from itertools import islice

import torch

from evaluation.canvas import closest
from evaluation.errors import UserError, command
from evaluation.run import Run
from machine_unlearning.core import cli, params, weights
from machine_unlearning.core.forget import autocast, denoising_loss, relabelling_loss, streams

MULTIPLIERS = {  # of <r, q>, |r|, |q|, where r = grad f, and of the setting `multiplier_value`
    "bome": lambda rq, r, q, eta: max((eta * q * q - rq) / (q * q), 0.0) if q else 0.0,  # the paper's
    "cosine": lambda rq, r, q, eta: max(eta - rq / (r * q + 1e-8), 0.0) if q else 0.0,  # the original code's
    "constant": lambda rq, r, q, value: value,
}
