"""Trains IE-ContraAST: attention, merging and decoder, against a discriminator; VGG-19 stays as it is
(Chen et al., NeurIPS 2021, section 3)

    python -m style_transfer.train ie_contrast --data mini --out runs/train/ie_contrast

    L = w_c L_content + w_s L_style + w_1 L_identity1 + w_2 L_identity2
        + w_cc L_contrastive_content + w_cs L_contrastive_style + w_a L_adversarial

    L_content       normalised relu4_1 and relu5_1 of image(c,s) against those of c
    L_style         mean and deviation of the channels of relu1_1 ... relu5_1 against those of s
    L_identity1     |image(c,c) - c|^2 + |image(s,s) - s|^2
    L_identity2     the same of relu1_1 ... relu5_1
    L_contrastive   outputs of one content, or style, are alike, others are not (contrast.py)
    L_adversarial   the discriminator takes outputs for paintings

Each content meets two styles, and each style two contents: image(c_i,s_i) and image(c_{i+1},s_i).
"""

import torch
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.core.training import Training, decayed, descend
from style_transfer.core.training_losses import four_losses, weigh
from style_transfer.ie_contrast.contrast import Discriminator, adversary, contrast, projectors
from style_transfer.ie_contrast.model import FILES, IEContraAST


def ie_contrast_losses(network: IEContraAST, heads: nn.ModuleDict, content, style):
    """Contents and styles [B,3,H,W] in [0,1] -> outputs [2B,3,H,W], the losses without their weights but
    for the adversarial one."""
    both, n = torch.cat([content, style]), len(content)
    once = torch.arange(n, device=content.device)
    c, s = torch.cat([once, once.roll(-1)]), torch.cat([once, once])  # numbers of an output's two images
    with torch.no_grad():
        features = network.encoder(both)
    contents, styles = network.transform.content(*features[3:]), network.transform.style(*features[3:])
    image = network.decode(tuple(x[c] for x in contents), tuple(x[n + s] for x in styles))
    same, made = network.decode(contents, styles), network.encoder(image)
    return image, four_losses(network.encoder, both, features, c, n + s, made, same) | {
        "contrastive_content": contrast(heads["content"](made[3].sum((2, 3))), same=c, other=s),
        "contrastive_style": contrast(heads["style"](made[2].sum((2, 3))), same=s, other=c),
    }


def train(run: Training) -> None:
    s, least = run.settings, 8 * 2**run.settings.layers
    if s.crop < least:  # its quarter, halved by every layer, is a single pixel
        raise UserError(f"layers={s.layers}: needs images of {least} pixels or more, not crop={s.crop}")
    encoder = run.encoder()
    widths = encoder.widths
    network, heads = IEContraAST(widths).to(run.device), projectors(widths).to(run.device)
    network.encoder = encoder
    run.begin(network.decoder, widths)
    discriminator = Discriminator(widths[: s.layers]).to(run.device)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([{"params": trained}, {"params": heads.parameters()}])
    opponent = torch.optim.Adam(discriminator.parameters(), betas=(0.5, 0.999))
    kept = {"network": network, "heads": heads, "optimizer": optimizer}
    kept |= {"discriminator": discriminator, "opponent": opponent}
    for step, content, style in run.batches(**kept):
        groups = (*optimizer.param_groups, *opponent.param_groups)
        for group, lr in zip(groups, (s.lr, s.projector_lr, s.lr)):
            group["lr"] = run.cooled(decayed(lr, s.decay, step))
        image, terms = ie_contrast_losses(network, heads, content, style)

        told_apart = adversary(discriminator(style), 1) + adversary(discriminator(image.detach()), 0)
        descend(opponent, told_apart)

        terms["adversarial"] = adversary(discriminator(image), 1)
        run.step(optimizer, weigh(terms, s.weights), **terms, discriminator=told_apart)
    run.save(network, FILES)
