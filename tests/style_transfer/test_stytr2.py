"""StyTr2: its transformer against torch's and written out, sizes, widths read off the files, wrong files."""

import pytest
import torch
from torch import nn

from evaluation.core.errors import UserError
from style_transfer.core.blocks import TwoScales
from style_transfer.stytr2.model import FILES, StyTr2, load
from style_transfer.stytr2.transformer import HEADS, DecoderLayer, EncoderLayer, Transformer
from tests.style_transfer import narrow

WIDTHS = (4, 8, 12, 16)


@pytest.fixture
def network():
    return load(narrow.released(narrow.lively(StyTr2(WIDTHS, hidden=24)), FILES))


@pytest.fixture
def images():
    return narrow.images()


def test_style_encoder_is_the_plain_transformer(network, images):
    patches = network.embedding(images[1])
    x = patches.flatten(2).transpose(1, 2)
    for layer in network.transformer.encoder_s["layers"]:
        plain = nn.TransformerEncoderLayer(WIDTHS[-1], HEADS, 24, batch_first=True).eval()
        plain.load_state_dict(layer.state_dict())
        x = plain(x)
    torch.testing.assert_close(network.transformer.encode_style(patches), x)


def attention(layer, query, key, value):
    """Head by head, of [N,C] to [M,C]."""
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases))
    heads = []
    for rows in torch.arange(q.shape[1]).chunk(HEADS):
        likeness = q[:, rows] @ k[:, rows].T / len(rows) ** 0.5
        heads.append(likeness.softmax(1) @ v[:, rows])
    return torch.cat(heads, 1) @ layer.out_proj.weight.T + layer.out_proj.bias


def test_encoder_layer_places_what_is_asked_and_what_answers():
    torch.manual_seed(0)
    layer = EncoderLayer(16, 24).double().eval().requires_grad_(False)
    x, p = torch.randn(2, 6, 16).double()
    once = layer.norm1(x + attention(layer.self_attn, x + p, x + p, x))
    expected = layer.norm2(once + layer.linear2(layer.linear1(once).relu()))
    torch.testing.assert_close(layer(x[None], p[None])[0], expected)


def test_decoder_layer_asks_the_style_twice():
    torch.manual_seed(0)
    layer = DecoderLayer(16, 24).double().eval().requires_grad_(False)
    x, p, style = torch.randn(6, 16).double(), torch.randn(6, 16).double(), torch.randn(4, 16).double()
    once = layer.norm1(x + attention(layer.self_attn, x + p, style, style))
    twice = layer.norm2(once + attention(layer.multihead_attn, once + p, style, style))
    expected = layer.norm3(twice + layer.linear2(layer.linear1(twice).relu()))
    torch.testing.assert_close(layer(x[None], p[None], style[None])[0], expected)


def test_positions_are_pooled_content(network):
    """A grid of 36 x 54 is averaged in cells of 2 x 3; a token lies between the centres of four cells."""
    transformer = network.transformer
    patches = torch.randn(1, 16, 36, 54)
    cells = patches.unflatten(2, (18, 2)).unflatten(4, (18, 3)).mean((3, 5))
    cells = transformer.new_ps(cells)
    got = transformer.content_positions(patches)
    # row 7 is 1/4 of a cell from the centre of cell 3 towards 4, column 14 is 1/3 from that of 4 towards 5
    rows = 0.75 * cells[:, :, 3] + 0.25 * cells[:, :, 4]
    torch.testing.assert_close(got[:, :, 7, 14], 2 / 3 * rows[:, :, 4] + 1 / 3 * rows[:, :, 5])


def test_turned_over_its_diagonal(network, images):
    """Transposed kernels paint the transposed image: on no grid does a token lose its place."""
    files = narrow.released(network, FILES)
    turned = {
        name: {key: x.mT.contiguous() if x.ndim == 4 else x for key, x in state.items()}
        for name, state in files.items()
    }
    made = load(turned).stylise(*(x.mT for x in images))
    torch.testing.assert_close(made.mT, network.stylise(*images))


def test_images_encoded_once_serve_every_pair(network):
    narrow.check_every_pair(network)


def test_bfloat16(network):
    narrow.check_bfloat16(network)


def test_what_is_over_is_cut_off(network, images):
    content, style = images
    made = network.stylise(content[..., :43, :69], style)
    torch.testing.assert_close(made, network.stylise(content[..., :40, :64], style))
    assert network.stylise(content, style).shape == content.shape


def test_all_of_it_learns(network, images):
    before = network.stylise(*images)
    network.train().requires_grad_(True)
    made = network.stylise(*images)
    assert not torch.allclose(made, before)  # dropout
    made.square().mean().backward()
    for name, weight in network.named_parameters():
        assert weight.grad.abs().sum() > 0, name


def test_files_of_parallel_training(network, images):
    files = {
        n: {f"module.{key}": x for key, x in state.items()}
        for n, state in narrow.released(network, FILES).items()
    }
    assert torch.equal(load(files).stylise(*images), network.stylise(*images))


def test_wrong_files(network):
    files = narrow.released(network, FILES)
    with pytest.raises(UserError, match=r"embedding_iter_160000\.pth"):
        load({name: state for name, state in files.items() if "embedding" not in name})
    with pytest.raises(UserError, match=r"transformer_iter_160000\.pth.*StyTr2"):
        load(files | {"transformer_iter_160000.pth": TwoScales(16).state_dict()})
    with pytest.raises(UserError, match=r"transformer_iter_160000\.pth.*another shape"):
        load(files | {"transformer_iter_160000.pth": Transformer(32, 24).state_dict()})
