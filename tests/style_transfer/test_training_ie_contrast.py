"""IE-ContraAST's training: losses from whole outputs, contrasts image by image, discriminator's scales."""

import pytest
import torch

from style_transfer.ie_contrast.contrast import Discriminator, adversary, contrast, projectors
from style_transfer.ie_contrast.model import IEContraAST
from style_transfer.ie_contrast.train import ie_contrast_losses
from tests.style_transfer import narrow

WIDTHS = (4, 4, 8, 8, 8)


@pytest.fixture
def network():
    network = narrow.lively(IEContraAST(WIDTHS))
    network.encoder.requires_grad_(False)
    return network


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(3, 3, 32, 32, generator=generator) for _ in range(2)]


def test_losses_are_those_of_whole_outputs(network, images):
    content, style = images
    content6, style6 = torch.cat([content, content[[1, 2, 0]]]), torch.cat([style, style])
    image, got = ie_contrast_losses(network, projectors(WIDTHS), content, style)
    torch.testing.assert_close(image, network.stylise(content6, style6), rtol=1e-4, atol=1e-4)
    expected = narrow.whole_losses(network.encoder, network.stylise, content6, style6)
    torch.testing.assert_close({name: got[name] for name in expected}, expected, rtol=1e-4, atol=1e-6)


def test_contrasts_are_those_of_each_image(network, images):
    """Images 0, 1, 2 are (c_i, s_i), images 3, 4, 5 are (c_{i+1}, s_i)."""
    heads = projectors(WIDTHS)
    image, got = ie_contrast_losses(network, heads, *images)
    of_style, of_content = {0: 3, 1: 4, 2: 5}, {0: 5, 1: 3, 2: 4}
    for partners in (of_style, of_content):
        partners.update({b: a for a, b in partners.items()})
    for name, map_, positives, left_out in (
        ("style", 2, of_style, of_content),
        ("content", 3, of_content, of_style),
    ):
        z = heads[name](network.encoder(image)[map_].sum((2, 3)))
        z = z / z.norm(dim=1, keepdim=True)
        total = 0
        for i in range(6):
            logits = {j: z[i] @ z[j] / 0.2 for j in range(6) if j not in (i, left_out[i])}
            assert len(logits) == 4
            total += sum(x.exp() for x in logits.values()).log() - logits[positives[i]]
        torch.testing.assert_close(got[f"contrastive_{name}"], total, rtol=1e-4, atol=1e-5)


def test_contrast_is_least_where_partners_agree():
    labels, others = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0])
    z = torch.eye(2)[labels]
    assert contrast(z, labels, others) < contrast(z, others, labels)
    assert contrast(3 * z, labels, others) == contrast(z, labels, others)


def test_discriminator_looks_at_three_sizes():
    discriminator = Discriminator((4, 8))
    images = torch.rand(2, 3, 32, 32)
    maps = discriminator(images)
    assert [tuple(m.shape) for m in maps] == [(2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    half = torch.zeros(2, 3, 16, 16)
    for y in range(16):
        for x in range(16):
            window = images[..., max(0, 2 * y - 1) : 2 * y + 2, max(0, 2 * x - 1) : 2 * x + 2]
            half[..., y, x] = window.mean((2, 3))  # without what lies beyond the border
    torch.testing.assert_close(discriminator.scales[1](half), maps[1])
    by_hand = sum(float(((m.detach() - 1) ** 2).sum()) / m.numel() for m in maps)
    assert adversary(maps, 1).item() == pytest.approx(by_hand, rel=1e-5)


def test_sides_of_the_game_have_their_own_gradients(network, images):
    discriminator, heads = Discriminator((4, 8)), projectors(WIDTHS)
    image, terms = ie_contrast_losses(network, heads, *images)
    adversary(discriminator(image.detach()), 0).backward()
    assert all(p.grad is None for p in [*network.parameters(), *heads.parameters()])
    (sum(terms.values()) + adversary(discriminator(image), 1)).backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*trained, *heads.parameters()])
