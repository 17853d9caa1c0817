"""Trains CAST: encoder and two decoders, against two discriminators, and the codes that tell styles apart
(Zhang et al., SIGGRAPH 2022, section 3)

    python -m style_transfer.train cast --data mini --out runs/train/cast

    L = w_adv L_adversarial + w_con L_contrastive + w_cyc L_cycle

    L_adversarial   hinge losses of B(c,s) among paintings and of A(s,c) among photos, averaged
    L_contrastive   codes of B(c,s) are those of s, and not those of the paintings in the queue (contrast.py)
    L_cycle         ( |A(B(c,s),c) - c| + |B(A(s,c),s) - s| ) / 2

A(x,y) = dec_A(AdaIN(E(x), E(y))) makes photos, B paintings; only B is saved. The miniature, which has
minutes, begins with VGG-19 as E and decoders that invert it.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.cast import contrast
from style_transfer.cast.contrast import hinge
from style_transfer.cast.model import CAST, FILES
from style_transfer.core import vgg
from style_transfer.core.blocks import adain, mean_std
from style_transfer.core.training import Training, descend
from style_transfer.core.training_losses import weigh


def cast_losses(generators: nn.ModuleDict, discriminators: nn.ModuleDict, codes, negatives, c, s):
    """Photos and paintings [B,3,H,W] in [-1,1] -> A(s,c) and B(c,s), the losses without their weights.

    `generators`: of photos, of paintings, two CAST with one encoder; `discriminators`: one for each.
    """
    encoder = generators["paintings"].encoder
    to_photo, to_painting = generators["photos"].decoder, generators["paintings"].decoder
    of_c, of_s = encoder(torch.cat([c, s])).chunk(2)
    like_c, like_s = mean_std(of_c), mean_std(of_s)
    photo, painting = to_photo(adain(of_s, *like_c)), to_painting(adain(of_c, *like_s))
    of_photo, of_painting = encoder(torch.cat([photo, painting])).chunk(2)
    made, wanted = codes(torch.cat([painting, s])).chunk(2, 1)
    back = to_photo(adain(of_painting, *like_c)), to_painting(adain(of_photo, *like_s))
    scores = hinge(discriminators["photos"](photo), 1) + hinge(discriminators["paintings"](painting), 1)
    return (photo, painting), {
        "adversarial": scores / 2,
        "contrastive": contrast.contrast(made, wanted.detach(), negatives),
        "cycle": (F.l1_loss(back[0], c) + F.l1_loss(back[1], s)) / 2,
    }


def told_apart(discriminators: nn.ModuleDict, photo, painting, c, s) -> torch.Tensor:
    """Loss of the discriminators; outputs are without gradient."""
    pairs = (discriminators["photos"], c, photo), (discriminators["paintings"], s, painting)
    return sum(hinge(score(real), 1) + hinge(score(made.detach()), -1) for score, real, made in pairs) / 4


@torch.no_grad()
def begin_as_vgg(generators: nn.ModuleDict, run: Training) -> None:
    """The encoder as VGG-19 and the decoders as its mirror image, both for images in [-1,1]."""
    encoder, own = run.encoder(), generators["paintings"].encoder
    if encoder.widths != vgg.scaled(run.settings.width):
        width, path = run.settings.width, run.args.encoder
        raise UserError(f"width={width}: --encoder {path} has another; or --init none")
    vgg.copy(encoder, own)
    first = vgg.convolutions(own)[0]
    first.weight /= 2
    first.bias += first.weight.sum((1, 2, 3))
    for network in generators.values():
        run.begin(network.decoder, encoder.widths)
        last = vgg.convolutions(network.decoder)[-1]
        last.weight *= 2
        last.bias.mul_(2).sub_(1)


def build(s, device) -> dict[str, nn.Module]:
    """All that is trained, and the queue."""
    widths, he = vgg.scaled(s.width)[:4], nn.init.kaiming_normal_
    generators = nn.ModuleDict({"photos": CAST(widths), "paintings": CAST(widths)})
    generators["photos"].encoder = generators["paintings"].encoder
    discriminators = nn.ModuleDict({name: contrast.discriminator(s.width) for name in generators})
    codes, narrow = contrast.StyleCodes(s.width), s.deviation is None
    for part in (generators, codes):
        vgg.draw(part, he if narrow else partial(nn.init.normal_, std=s.deviation))
    vgg.draw(discriminators, he if narrow else partial(nn.init.xavier_normal_, gain=contrast.GAIN))
    if narrow:
        for network in generators.values():
            vgg.initialised(network.decoder.decoder)
    parts = {"generators": generators, "discriminators": discriminators, "codes": codes}
    parts["queue"] = contrast.Queue(s.queue, s.width)
    return {name: part.to(device) for name, part in parts.items()}


def train(run: Training) -> None:
    s = run.settings
    parts = build(s, run.device)
    generators, discriminators, codes, queue = parts.values()
    if run.args.init:
        begin_as_vgg(generators, run)
    optimizers = {
        f"{name}_optimizer": torch.optim.Adam(parts[name].parameters(), s.lr, betas=(0.5, 0.999))
        for name in ("generators", "discriminators", "codes")
    }
    of_generators, of_discriminators, of_codes = optimizers.values()
    for _, content, style in run.batches(**parts, **optimizers):
        for optimizer in optimizers.values():
            optimizer.param_groups[0]["lr"] = run.cooled(s.lr)
        content, style = content * 2 - 1, style * 2 - 1
        outputs, terms = cast_losses(generators, discriminators, codes, queue.codes, content, style)
        against = told_apart(discriminators, *outputs, content, style)
        query, positive = codes(torch.cat([contrast.views(style), contrast.views(style)])).chunk(2, 1)
        coding = s.coding * contrast.contrast(query, positive.detach(), queue.codes)

        run.step(of_generators, weigh(terms, s.weights), **terms, discriminators=against, codes=coding)
        descend(of_discriminators, against)
        descend(of_codes, coding)
        queue.push(positive)
    run.save(generators["paintings"], FILES)
