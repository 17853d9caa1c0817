"""SANet's training: losses from whole outputs, and what learns."""

import torch

from style_transfer.sanet.model import SANet
from style_transfer.sanet.train import sanet_losses
from tests.style_transfer import narrow


def case():
    """-> narrow network, contents, styles."""
    network = narrow.lively(SANet((4, 4, 8, 8, 8)))
    network.encoder.requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    return network, *(torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2))


def test_losses_are_those_of_whole_outputs():
    network, content, style = case()
    expected = narrow.whole_losses(network.encoder, network.stylise, content, style)
    assert min(expected.values()) > 0
    torch.testing.assert_close(sanet_losses(network, content, style), expected, rtol=1e-4, atol=1e-6)


def test_every_weight_but_the_encoders_learns():
    network, *images = case()
    sum(sanet_losses(network, *images).values()).backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert all(p.grad is None for p in network.encoder.parameters())
