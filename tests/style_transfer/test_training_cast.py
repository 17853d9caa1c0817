"""CAST's training: losses from whole outputs, contrasts code by code, patches, views, parts' gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from style_transfer.cast import contrast
from style_transfer.cast.model import CAST
from style_transfer.cast.train import begin_as_vgg, build, cast_losses, told_apart
from style_transfer.core import vgg
from style_transfer.core.blocks import adain, mean_std
from tests.style_transfer import narrow

WIDTH = 0.0625


class Settings:
    width, deviation, queue = WIDTH, None, 6


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return build(Settings, "cpu")


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2)]


def run(parts, images):
    generators, discriminators, codes, queue = parts.values()
    return cast_losses(generators, discriminators, codes, queue.codes, *images)


def paint(network: CAST, content, style):
    """From [-1,1] to [-1,1]."""
    return network.stylise((content + 1) / 2, (style + 1) / 2) * 2 - 1


def test_both_directions_share_one_encoder(parts):
    generators = parts["generators"]
    assert generators["photos"].encoder is generators["paintings"].encoder
    assert generators["photos"].decoder is not generators["paintings"].decoder
    assert len(list(generators.parameters())) == 20 + 2 * 18


def test_losses_are_those_of_whole_outputs(parts, images):
    (c, s), (generators, discriminators) = images, (parts["generators"], parts["discriminators"])
    (photo, painting), got = run(parts, images)
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(photo, paint(generators["photos"], s, c), **close)
    torch.testing.assert_close(painting, paint(generators["paintings"], c, s), **close)
    pairs = (photo, discriminators["photos"]), (painting, discriminators["paintings"])
    expected = {
        "adversarial": sum(-(score(x) - 1).clamp(max=0).mean() for x, score in pairs) / 2,
        "cycle": 0.5
        * (
            (paint(generators["photos"], painting, c) - c).abs().mean()
            + (paint(generators["paintings"], photo, s) - s).abs().mean()
        ),
    }
    torch.testing.assert_close({name: got[name] for name in expected}, expected, **close)


def test_contrast_code_by_code():
    generator = torch.Generator().manual_seed(0)
    query, positive, queue = (
        F.normalize(torch.randn(4, n, 5, generator=generator), dim=2) for n in (3, 3, 7)
    )
    total = 0
    for layer in range(4):
        for q, k in zip(query[layer], positive[layer]):
            right = (q @ k / 0.07).exp()
            total += -(right / (right + sum((q @ n / 0.07).exp() for n in queue[layer]))).log() / 3
    torch.testing.assert_close(contrast.contrast(query, positive, queue), total)


def test_codes_are_unit_vectors_of_each_layer(parts, images):
    codes = narrow.lively(parts["codes"])(images[1])  # four channels may all be 0 without biases
    assert codes.shape == (4, 2, 128)
    torch.testing.assert_close(codes.norm(dim=2), torch.ones(4, 2))
    convolutions = [layer for layer in parts["codes"].modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [3, 4, 4, 8, 8, 16, 16, 16, 16, 32]


def test_queue_drops_the_oldest():
    queue = contrast.Queue(3, WIDTH)
    first, second = torch.full((4, 2, 128), 1.0), torch.full((4, 2, 128), 2.0)
    queue.push(first)
    queue.push(second)
    assert queue.codes[:, :, 0].tolist() == [[2, 2, 1]] * 4
    assert set(queue.state_dict()) == {"codes"}


def test_views_show_most_of_a_painting():
    """Of ramps of x and y, a view's extent is the side of its square."""
    torch.manual_seed(0)
    ramp = (torch.arange(40) + 0.5) / 40
    images = torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40), torch.ones(40, 40)])
    seen = contrast.views(images.expand(50, 3, 40, 40))
    sides = torch.stack([seen[:, 0, 0, -1] - seen[:, 0, 0, 0], seen[:, 1, -1, 0] - seen[:, 1, 0, 0]])
    sides = sides * 40 / 39
    torch.testing.assert_close(sides[0], sides[1], rtol=1e-3, atol=1e-3)
    assert sides.min() > 0.8**0.5 - 0.02
    assert sides.max() < 1.001
    assert sides.std() > 0.01
    assert seen[:, 0].mean((1, 2)).std() > 0.005  # not all from the middle


def test_a_score_depends_on_70_pixels():
    torch.manual_seed(0)
    layers = [layer for layer in contrast.discriminator(WIDTH) if not isinstance(layer, nn.InstanceNorm2d)]
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    scores = nn.Sequential(*layers)(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 84  # 70 and the reach of three blurs


def test_halving_blurs_by_hand():
    x = torch.arange(25.0).view(1, 1, 5, 5)
    got = contrast.Halve()(x)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    assert got.shape == (1, 1, 3, 3)
    torch.testing.assert_close(got[0, 0, 1, 1], (x[0, 0, 1:4, 1:4] * kernel).sum())


def test_sides_of_the_game_have_their_own_gradients(parts, images):
    generators, discriminators, codes, _ = parts.values()
    outputs, terms = run(parts, images)
    told_apart(discriminators, *outputs, *images).backward()
    assert all(p.grad is None for part in (generators, codes) for p in part.parameters())
    assert all(p.grad is not None for p in discriminators.parameters())
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generators.parameters())


def test_discriminators_want_real_images_high(parts, images):
    high = {"photos": lambda x: 2 * x.mean((1, 2, 3)), "paintings": lambda x: 2 * x.mean((1, 2, 3))}
    ones = torch.ones(2, 3, 32, 32)
    assert told_apart(high, -ones, -ones, ones, ones) == 0
    # (3 + 3) / 2 in each direction, / 2
    assert told_apart(high, ones, ones, -ones, -ones) == pytest.approx(3)


def test_discriminators_begin_as_narrow_as_published():
    """Xavier's weights times 0.02; all else normal, of deviation 0.02."""

    class Published:
        width, deviation, queue = 0.25, 0.02, 6

    torch.manual_seed(0)
    parts = build(Published, "cpu")
    for layer in (x for x in parts["discriminators"].modules() if isinstance(x, nn.Conv2d)):
        fans = 16 * (layer.in_channels + layer.out_channels)
        assert layer.weight.std().item() == pytest.approx(0.02 * (2 / fans) ** 0.5, rel=0.2)
        assert not layer.bias.any()
    for name in ("generators", "codes"):
        for layer in (x for x in parts[name].modules() if isinstance(x, nn.Conv2d) and x.in_channels > 3):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_networks_that_begin_as_vgg_and_its_mirror_image(parts, images):
    encoder, mirror = narrow.lively(vgg.Encoder(vgg.scaled(WIDTH))), vgg.decoder(vgg.scaled(WIDTH))

    class Run:
        settings, encoder = Settings, staticmethod(lambda: encoder)

        def begin(self, decoder, widths):
            decoder.decoder.load_state_dict(mirror.state_dict())

    begin_as_vgg(parts["generators"], Run())
    seen = [(image + 1) / 2 for image in images]
    with torch.no_grad():
        of_content, of_style = (encoder(image, 4)[3] for image in seen)
        wanted = mirror(adain(of_content, *mean_std(of_style)))
        for network in parts["generators"].values():
            torch.testing.assert_close(network.stylise(*seen), wanted, rtol=1e-4, atol=1e-4)
