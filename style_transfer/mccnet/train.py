"""Trains MCCNet: correlation module and decoder; VGG-19 stays as it is (Deng et al., AAAI 2021, section 3.3)

    python -m style_transfer.mccnet.train --data mini --out runs/train/mccnet

    L = w_c L_content + w_s L_style + w_1 L_identity1 + w_2 L_identity2 + w_n L_noise + w_tv L_tv

    L_content     normalised relu4_1 and relu5_1 of image(c,s) against those of c
    L_style       mean and deviation of the channels of relu1_1 ... relu5_1 against those of s
    L_identity1   |image(c,c) - c|^2 + |image(s,s) - s|^2
    L_identity2   the same of relu1_1 ... relu5_1
    L_noise       |image(c + noise, s) - image(c,s)|^2, which stands for a change of light in a video
    L_tv          sum |image(c,s) - its neighbour to the right| + |... - its neighbour below|

The noise is Gaussian; its deviation is drawn for every step. The weights are the code's.
"""

from evaluation.core.errors import UserError, command, early
from style_transfer.core import cli


def parse(argv=None):
    args = cli.parse_train_with_encoder(__doc__, __file__, argv)
    noise = list(args.settings.noise)
    if len(noise) != 2 or noise[0] > noise[1]:
        raise UserError(f"noise={noise}: expected two numbers, the smaller one first")
    return args


early(__name__, parse)

import torch
from torch import nn

from style_transfer.core import losses, vgg
from style_transfer.core.blocks import mvn
from style_transfer.core.training import Training, decayed, weigh
from style_transfer.mccnet.model import FILES, MCCNet


def mccnet_losses(network: MCCNet, content: torch.Tensor, style: torch.Tensor, noise: torch.Tensor) -> dict:
    """Contents and styles [B,3,H,W] in [0,1], noise of that shape -> the losses without their weights."""
    both, n, mcc = torch.cat([content, style]), len(content), network.module["MCCN"]
    with torch.no_grad():
        features = network.encoder(both)
    of_content, of_style = ([feature[part] for feature in features] for part in (slice(n), slice(n, None)))
    factors = mcc.weigh(features[3])
    asked, wanted = (features[3], mcc.f(mvn(features[3])), factors), (factors[n:],)
    image = network.decode(tuple(x[:n] for x in asked), wanted)
    same = network.decode(asked, (factors,))
    noisy = network.decode(network.encode_content(content + noise), wanted)
    made = losses.seen(network.encoder(image))
    return {
        "content": losses.content_loss(made, losses.seen(of_content)).mean(),
        "style": losses.style_loss(made, losses.seen(of_style)).mean(),
        "identity1": 2 * losses.square(same, both).mean(),  # two means are summed
        "identity2": 2 * losses.feature_loss(network.encoder(same), features).mean(),
        "noise": losses.square(noisy, image).mean(),
        "tv": image.diff(dim=2).abs().sum() + image.diff(dim=3).abs().sum(),
    }


@command
def main(argv=None):
    args = parse(argv)
    s = args.settings
    with Training(args) as run:
        encoder = run.encoder()
        widths = vgg.widths_of(encoder)
        network = MCCNet(widths).to(run.device)
        network.encoder = encoder
        run.mirror(network.decoder, widths)
        nn.init.ones_(network.module["MCCN"].g.bias)  # which is divided by
        optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], s.lr)
        for step, content, style in run.batches(network=network, optimizer=optimizer):
            optimizer.param_groups[0]["lr"] = run.cooled(decayed(s.lr, s.decay, step))
            deviation = torch.empty(()).uniform_(*s.noise).item()
            noise = deviation * torch.randn(content.shape).to(content)
            terms = mccnet_losses(network, content, style, noise)
            run.step(optimizer, weigh(terms, s.weights), **terms)
        run.save(network, FILES)


if __name__ == "__main__":
    main()
