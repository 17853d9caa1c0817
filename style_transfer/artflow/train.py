"""Trains ArtFlow's reversible network; VGG-19 only looks on (An et al., CVPR 2021, section 4)

    python -m style_transfer.artflow.train --data mini --out runs/train/artflow_adain [operator=wct]

    L = w_c L_content + w_s L_style

    L_content     relu4_1 of image(c,s) against that of c, not normalised
    L_style       mean and deviation of the channels of relu1_1 ... relu4_1 against those of s

The scales of all layers are set by the first contents, so that what they pass on has mean 0 and variance 1.
"""

from evaluation.core.errors import command, early
from style_transfer.core import cli

early(__name__, cli.parse_train_with_encoder, __doc__, __file__)

import torch

from style_transfer.artflow.model import FILES, ArtFlow
from style_transfer.core import losses
from style_transfer.core.training import Training, decayed, weigh


def artflow_losses(
    network: ArtFlow, encoder, content: torch.Tensor, style: torch.Tensor, operator: str
) -> dict[str, torch.Tensor]:
    """Contents and styles [B,3,H,W] in [0,1] -> the losses without their weights."""
    with torch.no_grad():
        of_content, of_style = encoder(content, 4), encoder(style, 4)
    made = encoder(network.stylise(content, style, operator=operator), 4)
    return {
        "content": losses.square(made[3], of_content[3]).mean(),
        "style": losses.style_loss(losses.seen(made), losses.seen(of_style)).mean(),
    }


@command
def main(argv=None):
    args = cli.parse_train_with_encoder(__doc__, __file__, argv)
    s = args.settings
    with Training(args) as run:
        encoder = run.encoder()
        network = ArtFlow(hidden=s.hidden).to(run.device)
        optimizer = torch.optim.Adam(network.parameters(), s.lr)
        for step, content, style in run.batches(network=network, optimizer=optimizer):
            if step == 0:
                network.initialise(content)
            optimizer.param_groups[0]["lr"] = decayed(s.lr, s.decay, step)
            terms = artflow_losses(network, encoder, content, style, s.operator)
            run.step(optimizer, weigh(terms, s.weights), clip=s.clip, **terms)
        run.save(network, FILES)


if __name__ == "__main__":
    main()
