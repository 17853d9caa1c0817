"""MCCNet's training: each loss computed image by image from whole outputs."""

import pytest
import torch
import torch.nn.functional as F

from style_transfer.mccnet.model import MCCNet
from style_transfer.mccnet.train import mccnet_losses
from tests.style_transfer import narrow


@pytest.fixture
def network():
    network = narrow.lively(MCCNet((4, 4, 8, 8, 8)))
    torch.nn.init.ones_(network.module["MCCN"].g.bias)
    network.encoder.requires_grad_(False)
    return network


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(2, 3, 32, 32, generator=generator) for _ in range(3)]


def mvn(x):
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt()


def test_losses_are_those_of_whole_outputs(network, images):
    content, style, noise = images
    image = network.stylise(content, style)
    made, of_content, of_style = (network.encoder(x) for x in (image, content, style))
    pairs = [(network.stylise(x, x), x) for x in (content, style)]
    expected = {
        "content": sum(F.mse_loss(mvn(made[i]), mvn(of_content[i])) for i in (3, 4)),
        "style": sum(
            F.mse_loss(m.mean((2, 3)), s.mean((2, 3)))
            + F.mse_loss((m.var((2, 3)) + 1e-5).sqrt(), (s.var((2, 3)) + 1e-5).sqrt())
            for m, s in zip(made, of_style)
        ),
        "identity1": sum(F.mse_loss(same, x) for same, x in pairs),
        "identity2": sum(
            F.mse_loss(m, f) for same, x in pairs for m, f in zip(network.encoder(same), network.encoder(x))
        ),
        "noise": F.mse_loss(network.stylise(content + noise, style), image),
        "tv": sum((x[:, 1:] - x[:, :-1]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum() for x in image),
    }
    assert min(expected.values()) > 0
    torch.testing.assert_close(mccnet_losses(network, content, style, noise), expected, rtol=1e-4, atol=1e-6)


def test_without_noise_there_is_no_loss_of_it(network, images):
    content, style, _ = images
    assert mccnet_losses(network, content, style, torch.zeros_like(content))["noise"] == 0


def test_all_but_the_unused_layer_learns(network, images):
    sum(mccnet_losses(network, *images).values()).backward()
    silent = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert silent == {"module.MCCN.h.weight", "module.MCCN.h.bias"}
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
