"""The losses of MAST's decoders one image and level at a time, and its encoder's file."""

import pytest
import torch

from style_transfer.core import vgg
from style_transfer.mast import model, train
from tests.style_transfer import narrow

WIDTHS = (4, 4, 8, 8, 8)


@pytest.fixture(scope="module")
def network():
    network = narrow.lively(model.MAST(WIDTHS))
    network.encoder.requires_grad_(False)
    return network


def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_losses_against_a_second_derivation(network):
    expected = {"pixel": 0.0, "feature": 0.0, "tv": 0.0}
    for image in images().split(1):
        for level, end in (("r41", "relu10"), ("r31", "relu6"), ("r21", "relu4")):
            names = [name for name, _ in network.encoder.named_children()]
            seen = network.encoder[: names.index(end) + 1]
            made = network.decoders[level](seen(image))
            expected["pixel"] += (made - image).pow(2).mean().item() / 2
            expected["feature"] += (seen(made) - seen(image)).pow(2).mean().item() / 2
            down, right = made[..., 1:, :] - made[..., :-1, :], made[..., 1:] - made[..., :-1]
            expected["tv"] += (down.pow(2).sum() + right.pow(2).sum()).item() / 2
    got = train.mast_losses(network, images())
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].item() == pytest.approx(value, rel=1e-4), name


def test_a_level_s_losses_move_its_decoder_alone(network):
    """Without the other levels' decoders the gradients of one are the same."""
    train.mast_losses(network, images())["pixel"].backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    for level, decoder in network.decoders.items():
        alone = torch.autograd.grad(
            (decoder(network.features(images(), [level])[level]) - images()).square().mean(),
            list(decoder.parameters()),
        )
        for gradient, parameter in zip(alone, decoder.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
    network.zero_grad(set_to_none=True)


@torch.no_grad()
def test_the_copied_encoder_sees_the_same():
    encoder = narrow.lively(vgg.Encoder(WIDTHS))
    network = model.MAST(WIDTHS)
    vgg.copy(encoder, network.encoder)
    got = network.features(images(), ["r21", "r31", "r41"])
    for feature, level in zip(encoder(images())[1:4], ("r21", "r31", "r41"), strict=True):
        torch.testing.assert_close(got[level], feature)
    torch.testing.assert_close(network.encoder(images()), encoder(images())[4])
