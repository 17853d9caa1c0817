"""CAST: statistics of the features it paints, strength, sizes, widths read off the files, wrong files."""

import pytest
import torch

from evaluation.core.errors import UserError
from style_transfer.cast.model import CAST, FILES, load
from style_transfer.core import vgg
from tests.style_transfer import narrow

WIDTHS = (4, 8, 12, 16)


@pytest.fixture
def network():
    return load(narrow.released(narrow.lively(CAST(WIDTHS)), FILES))


@pytest.fixture
def images():
    return narrow.images()


def painted(network, *args, **options):
    """What the decoder is given."""
    features = []
    hook = network.decoder.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    network.stylise(*args, **options)
    hook.remove()
    return features[0]


def test_content_takes_the_statistics_of_the_style(network, images):
    content, style = images
    c, s = (network.encoder(x * 2 - 1).double() for x in images)
    fused = painted(network, content, style).double()
    for i in range(2):
        for channel in range(WIDTHS[-1]):
            here, there = c[i, channel], s[i, channel]
            count = here.numel()
            std = ((here - here.mean()).square().sum() / (count - 1) + 1e-5).sqrt()
            target = ((there - there.mean()).square().sum() / (there.numel() - 1) + 1e-5).sqrt()
            expected = (here - here.mean()) / std * target + there.mean()
            torch.testing.assert_close(fused[i, channel], expected, rtol=1e-4, atol=1e-5)


def test_strength_blends_features(network, images):
    content, style = images
    none, half, full = (painted(network, content, style, strength=x) for x in (0.0, 0.5, 1.0))
    torch.testing.assert_close(none, network.encoder(content * 2 - 1))
    torch.testing.assert_close(half, (none + full) / 2)
    assert torch.equal(full, painted(network, content, style))
    assert not torch.allclose(none, full)


def test_images_encoded_once_serve_every_pair(network):
    narrow.check_every_pair(network)


def test_bfloat16(network):
    narrow.check_bfloat16(network)


@pytest.mark.parametrize("size, made", [((32, 40), (32, 40)), ((29, 35), (32, 40)), ((9, 33), (16, 40))])
def test_sizes(network, size, made):
    assert network.stylise(torch.rand(1, 3, *size), torch.rand(1, 3, 17, 23)).shape == (1, 3, *made)
    assert (size == made) == all(side % network.multiple == 0 for side in size)


def test_all_of_it_learns(network, images):
    network.train().requires_grad_(True)
    network.stylise(*images).square().mean().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_wrong_files(network):
    files = narrow.released(network, FILES)
    with pytest.raises(UserError, match=r"latest_net_Dec_B\.pth"):
        load({name: state for name, state in files.items() if "Dec_B" not in name})
    with pytest.raises(UserError, match=r"latest_net_AE\.pth.*CAST"):
        load(files | {"latest_net_AE.pth": vgg.Encoder().state_dict()})
    with pytest.raises(UserError, match=r"latest_net_Dec_B\.pth.*CAST"):
        load(files | {"latest_net_Dec_B.pth": vgg.decoder(WIDTHS).state_dict()})
    with pytest.raises(UserError, match=r"latest_net_Dec_B\.pth.*another shape"):
        load(files | {"latest_net_Dec_B.pth": CAST((4, 8, 12, 20)).decoder.state_dict()})
