"""IE-ContraAST: its attention written out, steps, sizes, widths read off the files, wrong files."""

import pytest
import torch

from evaluation.core.errors import UserError
from style_transfer.core.blocks import TwoScales
from style_transfer.ie_contrast.model import FILES, IEContraAST, load
from style_transfer.stytr2.transformer import Transformer
from tests.style_transfer import narrow

WIDTHS = (4, 8, 12, 16, 16)


@pytest.fixture
def network():
    return load(narrow.released(narrow.lively(IEContraAST(WIDTHS)), FILES))


@pytest.fixture
def images():
    return narrow.images()


def attention(block, content, style):
    """Position by position; content [C,h,w], style [C,H,W]."""

    def normalised(x):
        x = x.flatten(1)
        return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()

    def apply(layer, x):
        return layer.weight[:, :, 0, 0] @ x + layer.bias[:, None]

    asked = apply(block.f, normalised(content))
    keys, values = apply(block.g, normalised(style)), apply(block.h, style.flatten(1))
    found = torch.zeros_like(asked)
    for i in range(asked.shape[1]):
        weight = (asked[:, i, None] * keys).sum(0).exp()
        found[:, i] = (values * weight).sum(1) / weight.sum()
    return content + apply(block.out_conv, found).view_as(content)


def test_transform_written_out():
    torch.manual_seed(0)
    transform = TwoScales(8).double().requires_grad_(False)
    c4, c5, s4, s5 = (torch.randn(2, 8, *size).double() for size in ((5, 7), (3, 4), (4, 6), (2, 3)))
    got = transform(transform.content(c4, c5), transform.style(s4, s5))
    for i in range(2):
        coarse = attention(transform.sanet5_1, c5[i], s5[i])
        rows = [y * 3 // 5 for y in range(5)]
        columns = [x * 4 // 7 for x in range(7)]
        both = attention(transform.sanet4_1, c4[i], s4[i]) + coarse[:, rows][:, :, columns]
        mirrored = torch.nn.functional.pad(both[None], (1, 1, 1, 1), mode="reflect")
        merge = transform.merge_conv
        expected = torch.nn.functional.conv2d(mirrored, merge.weight, merge.bias)[0]
        torch.testing.assert_close(got[i], expected)


def test_a_step_continues_from_the_one_before(network, images):
    content, style = images
    once = network.stylise(content, style)
    assert once.min() < 0 or once.max() > 1  # which is not clipped in between
    again = network.decode(network.encode_content(once), network.encode_style(style))
    torch.testing.assert_close(network.stylise(content, style, steps=2), again)
    assert not torch.allclose(again, once)


def test_images_encoded_once_serve_every_pair(network):
    narrow.check_every_pair(network)


def test_bfloat16(network):
    narrow.check_bfloat16(network)


@pytest.mark.parametrize("size, made", [((32, 40), (32, 40)), ((29, 35), (32, 40)), ((17, 57), (24, 64))])
def test_sizes(network, size, made):
    assert network.stylise(torch.rand(1, 3, *size), torch.rand(1, 3, 17, 23)).shape == (1, 3, *made)
    assert (size == made) == all(side % network.multiple == 0 for side in size)


def test_all_of_it_learns(network, images):
    network.train().requires_grad_(True)
    network.stylise(*images).square().mean().backward()
    unused = ("encoder.45", "encoder.48", "encoder.51")  # beyond relu5_1
    for name, weight in network.named_parameters():
        assert (weight.grad is None) == name.startswith(unused), name


def test_wrong_files(network):
    files = narrow.released(network, FILES)
    with pytest.raises(UserError, match=r"vgg_normalised\.pth"):
        load({name: state for name, state in files.items() if "vgg" not in name})
    with pytest.raises(UserError, match=r"transformer_iter_160000\.pth.*IE-ContraAST"):
        load(files | {"transformer_iter_160000.pth": Transformer(16, 32).state_dict()})
    with pytest.raises(UserError, match=r"decoder_iter_160000\.pth.*another shape"):
        load(files | {"decoder_iter_160000.pth": IEContraAST((4, 8, 8, 16, 16)).decoder.state_dict()})
