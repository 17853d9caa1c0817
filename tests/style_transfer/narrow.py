"""Networks of a few channels, and what must hold for each."""

import torch
from torch import nn


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
