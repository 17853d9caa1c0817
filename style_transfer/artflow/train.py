"""Trains ArtFlow's reversible network; VGG-19 only looks on (An et al., CVPR 2021, section 4)

    python -m style_transfer.train artflow --data mini --out runs/train/artflow_adain [operator=wct]

    L = w_c L_content + w_s L_style

    L_content     relu4_1 of image(c,s) against that of c, not normalised
    L_style       mean and deviation of the channels of relu1_1 ... relu4_1 against those of s

The scales of all layers are set by the first contents, so that what they pass on has mean 0 and variance 1.
"""

import torch
import torch.nn.functional as F

from style_transfer.artflow.model import FILES, ArtFlow
from style_transfer.core.networks import with_options
from style_transfer.core.training import Training, decayed
from style_transfer.core.training_losses import style_loss, weigh


def artflow_losses(network: ArtFlow, encoder, content: torch.Tensor, style: torch.Tensor) -> dict:
    """Contents and styles [B,3,H,W] in [0,1] -> the losses without their weights."""
    with torch.no_grad():
        of_content, of_style = encoder(content, 4), encoder(style, 4)
    made = encoder(network.stylise(content, style), 4)
    return {"content": F.mse_loss(made[3], of_content[3]), "style": style_loss(made, of_style)}


def train(run: Training) -> None:
    s = run.settings
    encoder = run.encoder()
    network = with_options(ArtFlow(hidden=s.hidden), operator=s.operator).to(run.device)
    optimizer = torch.optim.Adam(network.parameters(), s.lr)
    for step, content, style in run.batches(network=network, optimizer=optimizer):
        if step == 0:
            network.initialise(content)
        optimizer.param_groups[0]["lr"] = run.cooled(decayed(s.lr, s.decay, step))
        terms = artflow_losses(network, encoder, content, style)
        run.step(optimizer, weigh(terms, s.weights), clip=s.clip, **terms)
    run.save(network, FILES)
