"""Trains CAST: encoder and two decoders, against two discriminators, and the codes that tell styles apart
(Zhang et al., SIGGRAPH 2022, section 3)

    python -m style_transfer.cast.train --data mini --out runs/train/cast

    L = w_adv L_adversarial + w_con L_contrastive + w_cyc L_cycle

    L_adversarial   hinge losses of B(c,s) among paintings and of A(s,c) among photos, averaged
    L_contrastive   codes of B(c,s) are those of s, and not those of the paintings in the queue (contrast.py)
    L_cycle         ( |A(B(c,s),c) - c| + |B(A(s,c),s) - s| ) / 2

A(x,y) = dec_A(AdaIN(E(x), E(y))) makes photos, B paintings; only B is saved. The miniature, which has
minutes, begins with VGG-19 as E and decoders that invert it.
"""

from evaluation.core.errors import UserError, command, early
from style_transfer.core import cli


def parse(argv=None):
    """VGG-19 is asked for only where the networks begin as it does."""
    args = cli.parse_train(__doc__, __file__, argv)
    if args.settings.mirror:
        cli.check_encoder(args)
    return args


early(__name__, parse)

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.cast import contrast
from style_transfer.cast.contrast import hinge
from style_transfer.cast.model import CAST, FILES
from style_transfer.core import vgg
from style_transfer.core.blocks import adain, mean_std
from style_transfer.core.training import Training, weigh


def cast_losses(networks: nn.ModuleDict, judges: nn.ModuleDict, codes, negatives, c, s):
    """Photos and paintings [B,3,H,W] in [-1,1] -> A(s,c) and B(c,s), the losses without their weights.

    `networks`: photos, paintings, two CAST with one encoder; `judges`: a discriminator for each.
    """
    encoder = networks["paintings"].encoder
    to_photo, to_painting = networks["photos"].decoder, networks["paintings"].decoder
    of_c, of_s = encoder(torch.cat([c, s])).chunk(2)
    like_c, like_s = mean_std(of_c), mean_std(of_s)
    photo, painting = to_photo(adain(of_s, *like_c)), to_painting(adain(of_c, *like_s))
    of_photo, of_painting = encoder(torch.cat([photo, painting])).chunk(2)
    made, wanted = codes(torch.cat([painting, s])).chunk(2, 1)
    back = to_photo(adain(of_painting, *like_c)), to_painting(adain(of_photo, *like_s))
    scores = hinge(judges["photos"](photo), 1) + hinge(judges["paintings"](painting), 1)
    return (photo, painting), {
        "adversarial": scores / 2,
        "contrastive": contrast.contrast(made, wanted.detach(), negatives),
        "cycle": (F.l1_loss(back[0], c) + F.l1_loss(back[1], s)) / 2,
    }


def judged(judges: nn.ModuleDict, photo, painting, c, s) -> torch.Tensor:
    """Loss of the discriminators; outputs are without gradient."""
    pairs = (judges["photos"], c, photo), (judges["paintings"], s, painting)
    return sum(hinge(judge(real), 1) + hinge(judge(made.detach()), -1) for judge, real, made in pairs) / 4


def step_of(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def begin_as_vgg(networks: nn.ModuleDict, run: Training) -> None:
    """The encoder as VGG-19 and the decoders as its mirror image, both for images in [-1,1]."""
    encoder, layers = run.encoder(), vgg.convolutions(networks["paintings"].encoder)
    if vgg.widths_of(encoder) != vgg.scaled(run.settings.width):
        raise UserError(
            f"width={run.settings.width}: --encoder {run.args.encoder} has another; or mirror=false"
        )
    for layer, model in zip(layers, vgg.convolutions(encoder)):
        layer.load_state_dict(model.state_dict())
    layers[0].weight /= 2
    layers[0].bias += layers[0].weight.sum((1, 2, 3))
    for network in networks.values():
        run.mirror(network.decoder, vgg.widths_of(encoder))
        last = vgg.convolutions(network.decoder)[-1]
        last.weight *= 2
        last.bias.mul_(2).sub_(1)


def build(s, device) -> dict[str, nn.Module]:
    """All that is trained, and the queue."""
    widths = vgg.scaled(s.width)[:4]
    networks = nn.ModuleDict({"photos": CAST(widths), "paintings": CAST(widths)})
    networks["photos"].encoder = networks["paintings"].encoder
    judges = nn.ModuleDict({name: contrast.discriminator(s.width) for name in networks})
    parts = {"networks": networks, "judges": judges, "codes": contrast.StyleCodes(s.width)}
    for part in parts.values():
        contrast.begin(part, s.deviation)
    if s.deviation is None:
        for network in networks.values():
            vgg.initialised(network.decoder.decoder)
    parts["queue"] = contrast.Queue(s.queue, s.width)
    return {name: part.to(device) for name, part in parts.items()}


@command
def main(argv=None):
    args = parse(argv)
    s = args.settings
    with Training(args) as run:
        parts = build(s, run.device)
        networks, judges, codes, queue = parts.values()
        if s.mirror:
            begin_as_vgg(networks, run)
        adam = [torch.optim.Adam(p.parameters(), s.lr, betas=(0.5, 0.999)) for p in (networks, judges, codes)]
        for _, content, style in run.batches(**parts, **dict(zip(("painter", "critics", "coder"), adam))):
            for optimizer in adam:
                optimizer.param_groups[0]["lr"] = run.cooled(s.lr)
            content, style = content * 2 - 1, style * 2 - 1
            outputs, terms = cast_losses(networks, judges, codes, queue.codes, content, style)
            against = judged(judges, *outputs, content, style)
            one, other = codes(torch.cat([contrast.views(style), contrast.views(style)])).chunk(2, 1)
            coding = s.coding * contrast.contrast(one, other.detach(), queue.codes)

            run.step(adam[0], weigh(terms, s.weights), **terms, judges=against, codes=coding)
            step_of(adam[1], against)
            step_of(adam[2], coding)
            queue.push(other)
        run.save(networks["paintings"], FILES)


if __name__ == "__main__":
    main()
