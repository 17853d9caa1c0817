"""Networks of a few channels, and what must hold for each."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.core import vgg

WIDTHS = vgg.scaled(1 / 16)


def lively(network):
    """Random weights that keep an image visible to the end; after torch's own the output is nearly flat."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight.data, generator=generator)
        else:
            scale = "norm" in name and name.endswith("weight")
            weight.data = scale + 0.1 * torch.randn(weight.shape, generator=generator)
    return network


def write_encoder(folder: Path) -> Path:
    """A narrow VGG-19, and a decoder beside it, under the names of the released ones."""
    torch.manual_seed(0)
    torch.save(lively(vgg.Encoder(WIDTHS)).state_dict(), folder / vgg.ENCODER)
    torch.save(vgg.decoder(WIDTHS).state_dict(), folder / vgg.DECODER)
    return folder / vgg.ENCODER


def released(network, files):
    """{released file: state dict} of a network whose method's FILES these are."""
    return {file: network.get_submodule(part).state_dict() for file, part in files.items()}


def images():
    """Two contents and two styles of other shapes."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 48, 80, generator=generator), torch.rand(2, 3, 64, 40, generator=generator)


def check_every_pair(network):
    """Each image is encoded once, and every content painted in every style."""
    content, style = images()
    contents, styles = network.encode_content(content), network.encode_style(style)
    for i in range(2):
        for j in range(2):
            made = network.decode(tuple(x[i : i + 1] for x in contents), tuple(x[j : j + 1] for x in styles))
            alone = network.stylise(content[i : i + 1], style[j : j + 1])
            torch.testing.assert_close(made, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made, network.stylise(content[:1], style[1:]))
    assert not torch.allclose(made, network.stylise(content[1:], style[:1]))


def check_bfloat16(network):
    """Under autocast the images stay close: 8 bits of mantissa."""
    content, style = images()
    exact = network.stylise(content, style)
    with torch.autocast("cpu", torch.bfloat16):
        made = network.stylise(content, style).float()
    assert (made - exact).square().mean() < 1e-2 * exact.var()
    assert not torch.equal(made, exact)


def mvn(x):
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt()


def whole_losses(encoder, stylise, content, style):
    """Content, style and both identity losses, from whole outputs."""
    made, of_content, of_style = (encoder(x) for x in (stylise(content, style), content, style))
    pairs = [(stylise(x, x), x) for x in (content, style)]
    return {
        "content": sum(F.mse_loss(mvn(made[i]), mvn(of_content[i])) for i in (3, 4)),
        "style": sum(
            F.mse_loss(m.mean((2, 3)), s.mean((2, 3)))
            + F.mse_loss((m.var((2, 3)) + 1e-5).sqrt(), (s.var((2, 3)) + 1e-5).sqrt())
            for m, s in zip(made, of_style)
        ),
        "identity1": sum(F.mse_loss(same, x) for same, x in pairs),
        "identity2": sum(F.mse_loss(m, f) for same, x in pairs for m, f in zip(encoder(same), encoder(x))),
    }
