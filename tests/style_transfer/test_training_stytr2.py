"""StyTr2's training: each loss computed from whole outputs, dropout, and the learning rate."""

import pytest
import torch

from style_transfer.core import vgg
from style_transfer.stytr2.model import StyTr2
from style_transfer.stytr2.train import stytr2_losses, warmed
from tests.style_transfer import narrow


@pytest.fixture
def encoder():
    return narrow.lively(vgg.Encoder((4, 4, 8, 8, 8))).requires_grad_(False)


@pytest.fixture
def network():
    return narrow.lively(StyTr2((4, 4, 8, 8), hidden=16)).eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2)]


def test_losses_are_those_of_whole_outputs(network, encoder, images):
    content, style = images
    expected = narrow.whole_losses(encoder, network.stylise, content, style)
    assert min(expected.values()) > 0
    torch.testing.assert_close(stytr2_losses(network, encoder, *images), expected, rtol=1e-4, atol=1e-6)


def test_dropout_is_at_work_in_training_only(network, encoder, images):
    def twice():
        return [stytr2_losses(network, encoder, *images)["style"].item() for _ in range(2)]

    assert len(set(twice())) == 1
    network.train()
    assert len(set(twice())) == 2


def test_every_weight_learns(network, encoder, images):
    sum(stytr2_losses(network, encoder, *images).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("step", [0, 5000, 9999, 10000, 160000])
def test_learning_rate_is_the_published_one(step):
    rising, falling = 5e-5 * (1 + 3e-4 * step), 2e-4 / (1 + 1e-5 * (step - 10000))
    assert warmed(2e-4, 10000, 1e-5, step) == pytest.approx(rising if step < 10000 else falling)
