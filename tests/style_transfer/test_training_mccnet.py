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


def test_losses_are_those_of_whole_outputs(network, images):
    content, style, noise = images
    image = network.stylise(content, style)
    expected = narrow.whole_losses(network.encoder, network.stylise, content, style) | {
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
