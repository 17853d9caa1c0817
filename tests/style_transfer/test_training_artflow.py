"""ArtFlow's training: losses from whole outputs, gradients through both operators, the clipped gradient."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from style_transfer.artflow.model import ArtFlow
from style_transfer.artflow.train import artflow_losses
from style_transfer.core import vgg
from style_transfer.core.networks import with_options
from style_transfer.core.training import Training
from tests.style_transfer import narrow

WIDTHS = (4, 4, 8, 8, 8)


@pytest.fixture
def encoder():
    return narrow.lively(vgg.Encoder(WIDTHS)).requires_grad_(False)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2)]


@pytest.fixture
def network(images):
    torch.manual_seed(0)
    network = ArtFlow(blocks=2, flows=2, hidden=4)
    network.initialise(images[0])
    return network


@pytest.mark.parametrize("operator", ["adain", "wct"])
def test_losses_are_those_of_the_outputs(network, encoder, images, operator):
    content, style = images
    got = artflow_losses(with_options(network, operator=operator), encoder, content, style)
    made = encoder(network.stylise(content, style, operator=operator))
    expected = {
        "content": F.mse_loss(made[3], encoder(content)[3]),
        "style": sum(
            F.mse_loss(m.mean((2, 3)), s.mean((2, 3)))
            + F.mse_loss((m.var((2, 3)) + 1e-5).sqrt(), (s.var((2, 3)) + 1e-5).sqrt())
            for m, s in zip(made[:4], encoder(style)[:4])
        ),
    }
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("operator", ["adain", "wct"])
def test_gradients_are_finite_and_as_differences_say(network, encoder, images, operator):
    network, encoder, images = network.double(), encoder.double(), [image.double() for image in images]

    def loss():
        return sum(artflow_losses(with_options(network, operator=operator), encoder, *images).values())

    loss().backward()
    trained = list(network.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    weight, h = network.blocks[1].flows[0].invconv.w_l, 1e-6
    values = []
    for side in (h, -h):
        with torch.no_grad():
            weight[5, 2] += side
            values.append(float(loss()))
            weight[5, 2] -= side
    difference = (values[0] - values[1]) / (2 * h)
    assert weight.grad[5, 2].item() == pytest.approx(difference, rel=1e-4)


def test_a_step_clips_the_norm_of_all_gradients():
    a, b = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b]}], 1.0)
    run = Training.__new__(Training)
    run.number, run.settings, run.since = (
        1,
        SimpleNamespace(steps=3),
        [],
    )  # neither first nor last: is not logged
    run.step(optimizer, 3 * a.sum() + 4 * b.sum(), clip=1.0)
    torch.testing.assert_close(torch.cat([a, b]).detach(), -torch.tensor([0.6, 0.8]))
    run.step(optimizer, 3 * a.sum() + 4 * b.sum(), clip=10.0)
    torch.testing.assert_close(torch.cat([a, b]).detach(), -torch.tensor([3.6, 4.8]))
