"""Trains IE-ContraAST: attention, merging and decoder, against a discriminator; VGG-19 stays as it is
(Chen et al., NeurIPS 2021, section 3)

    python -m style_transfer.ie_contrast.train --data mini --out runs/train/ie_contrast

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

from evaluation.core.errors import UserError, command, early
from style_transfer.core import cli


def parse(argv=None):
    args = cli.parse_train_with_encoder(__doc__, __file__, argv)
    crop, least = args.settings.crop, 8 * 2**args.settings.layers
    if crop < least:  # its quarter, halved by every layer, is a single pixel
        raise UserError(
            f"layers={args.settings.layers}: needs images of {least} pixels or more, not crop={crop}"
        )
    return args


early(__name__, parse)

import torch
from torch import nn

from style_transfer.core import losses, vgg
from style_transfer.core.training import Training, decayed, weigh
from style_transfer.ie_contrast.contrast import Discriminator, adversary, contrast, projectors
from style_transfer.ie_contrast.model import FILES, IEContraAST


def ie_contrast_losses(
    network: IEContraAST, heads: nn.ModuleDict, content: torch.Tensor, style: torch.Tensor
):
    """Contents and styles [B,3,H,W] in [0,1] -> outputs [2B,3,H,W], the losses without their weights but
    for the adversarial one."""
    both, n = torch.cat([content, style]), len(content)
    once = torch.arange(n, device=content.device)
    c, s = torch.cat([once, once.roll(-1)]), torch.cat([once, once])  # numbers of an output's two images
    with torch.no_grad():
        features = network.encoder(both)
    of_content, of_style = ([feature[numbers] for feature in features] for numbers in (c, n + s))
    asked, given = network.transform.content(*features[3:]), network.transform.style(*features[3:])
    image = network.decode(tuple(x[c] for x in asked), tuple(x[n + s] for x in given))
    same = network.decode(asked, given)
    maps = network.encoder(image)
    made = losses.seen(maps)
    return image, {
        "content": losses.content_loss(made, losses.seen(of_content)).mean(),
        "style": losses.style_loss(made, losses.seen(of_style)).mean(),
        "identity1": 2 * losses.square(same, both).mean(),  # two means are summed
        "identity2": 2 * losses.feature_loss(network.encoder(same), features).mean(),
        "contrastive_content": contrast(heads["content"](maps[3].sum((2, 3))), same=c, other=s),
        "contrastive_style": contrast(heads["style"](maps[2].sum((2, 3))), same=s, other=c),
    }


@command
def main(argv=None):
    args = parse(argv)
    s = args.settings
    with Training(args) as run:
        encoder = run.encoder()
        widths = vgg.widths_of(encoder)
        network, heads = IEContraAST(widths).to(run.device), projectors(widths).to(run.device)
        network.encoder = encoder
        run.mirror(network.decoder, widths)
        critic = Discriminator(widths[: s.layers]).to(run.device)
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam([{"params": trained}, {"params": heads.parameters()}])
        opponent = torch.optim.Adam(critic.parameters(), betas=(0.5, 0.999))
        kept = {"network": network, "heads": heads, "optimizer": optimizer}
        kept |= {"critic": critic, "opponent": opponent}
        for step, content, style in run.batches(**kept):
            for group in (*optimizer.param_groups, *opponent.param_groups):
                group["lr"] = run.cooled(decayed(s.lr, s.decay, step))
            optimizer.param_groups[1]["lr"] *= s.projectors
            image, terms = ie_contrast_losses(network, heads, content, style)

            judged = adversary(critic(style), 1) + adversary(critic(image.detach()), 0)
            opponent.zero_grad(set_to_none=True)
            judged.backward()
            opponent.step()

            terms["adversarial"] = adversary(critic(image), 1)
            run.step(optimizer, weigh(terms, s.weights), **terms, critic=judged)
        run.save(network, FILES)


if __name__ == "__main__":
    main()
