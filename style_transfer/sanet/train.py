"""Trains SANet: attention, merging and decoder; VGG-19 stays as it is (Park & Lee, CVPR 2019, section 3.3)

    python -m style_transfer.sanet.train --data mini --out runs/train/sanet

    L = w_c L_content + w_s L_style + w_1 L_identity1 + w_2 L_identity2

    L_content     normalised relu4_1 and relu5_1 of image(c,s) against those of c
    L_style       mean and deviation of the channels of relu1_1 ... relu5_1 against those of s
    L_identity1   |image(c,c) - c|^2 + |image(s,s) - s|^2
    L_identity2   the same of relu1_1 ... relu5_1

The weights are the code's, 1, 3, 50 and 1; the paper exchanges the last two.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_train_with_encoder, __doc__, __file__)

import torch

from style_transfer.core import losses, vgg
from style_transfer.core.training import Training, decayed, weigh
from style_transfer.sanet.model import FILES, SANet


def sanet_losses(network: SANet, content: torch.Tensor, style: torch.Tensor) -> dict[str, torch.Tensor]:
    """Contents and styles [B,3,H,W] in [0,1] -> the losses without their weights."""
    both, n = torch.cat([content, style]), len(content)
    with torch.no_grad():
        features = network.encoder(both)
    of_content, of_style = ([feature[part] for feature in features] for part in (slice(n), slice(n, None)))
    asked, given = network.transform.content(*features[3:]), network.transform.style(*features[3:])
    image = network.decode(tuple(x[:n] for x in asked), tuple(x[n:] for x in given))
    same = network.decode(asked, given)
    made = losses.seen(network.encoder(image))
    return {
        "content": losses.content_loss(made, losses.seen(of_content)).mean(),
        "style": losses.style_loss(made, losses.seen(of_style)).mean(),
        "identity1": 2 * losses.square(same, both).mean(),  # two means are summed
        "identity2": 2 * losses.feature_loss(network.encoder(same), features).mean(),
    }


@command
def main(argv=None):
    args = cli.parse_train_with_encoder(__doc__, __file__, argv)
    s = args.settings
    with Training(args) as run:
        encoder = run.encoder()
        widths = vgg.widths_of(encoder)
        network = SANet(widths).to(run.device)
        network.encoder = encoder
        run.mirror(network.decoder, widths)
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], s.lr)
        for step, content, style in run.batches(network=network, optimizer=optimizer):
            optimizer.param_groups[0]["lr"] = run.cooled(decayed(s.lr, s.decay, step))
            terms = sanet_losses(network, content, style)
            run.step(optimizer, weigh(terms, s.weights), **terms)
        run.save(network, FILES)


if __name__ == "__main__":
    main()
