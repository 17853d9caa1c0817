"""AdaAttN's losses against a derivation position by position, its schedule."""

from functools import partial

import numpy as np
import pytest
import torch

from style_transfer.adaattn import model, train
from style_transfer.core import vgg
from style_transfer.core.networks import with_options
from tests.style_transfer import narrow

WIDTHS = (4, 4, 8, 8, 8)


@pytest.fixture(scope="module")
def network():
    network = narrow.lively(model.AdaAttN(WIDTHS))
    network.encoder.requires_grad_(False)
    return network


def images(size=32):
    generator = torch.Generator().manual_seed(2)
    return (torch.rand(2, 3, size, size, generator=generator) for _ in range(2))


def normalised(x):
    """[C,N], in NumPy."""
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, ddof=1, keepdims=True) + 1e-5)


def stacked(features, sample, layer):
    """Keys of one image, [K,N]: every shallower map read at every second, fourth ... position."""
    maps = [feature[sample].double().numpy() for feature in features[: layer + 1]]
    return np.concatenate(
        [
            normalised(m[:, :: 2 ** (layer - i), :: 2 ** (layer - i)].reshape(len(m), -1))
            for i, m in enumerate(maps)
        ]
    )


def attended(content, style, sample, layer, chosen=slice(None)):
    """The target of one image, one position after another: [C,N]."""
    query, key = stacked(content, sample, layer), stacked(style, sample, layer)[:, chosen]
    own = normalised(content[layer][sample].double().flatten(1).numpy())
    value = style[layer][sample].double().flatten(1).numpy()[:, chosen]
    columns = []
    for position in range(query.shape[1]):
        share = np.exp(logits := query[:, position] @ key) / np.exp(logits).sum()
        mean = (value * share).sum(1)
        std = np.sqrt(((value - mean[:, None]) ** 2 * share).sum(1))
        columns.append(std * own[:, position] + mean)
    return np.stack(columns, 1)


@torch.no_grad()
def test_losses_against_a_second_derivation(network):
    content, style = images()
    got = train.adaattn_losses(with_options(network, seed=0), content, style)
    c, s, made = (network.encoder(x) for x in (content, style, network.stylise(content, style)))
    expected = {"global": 0.0, "local": 0.0, "content": 0.0}
    for layer in range(1, 5):
        for sample in range(2):
            x, y, z = (f[layer][sample].double().flatten(1).numpy() for f in (made, s, c))
            means = np.mean((x.mean(1) - y.mean(1)) ** 2)
            deviations = np.mean((np.sqrt(x.var(1, ddof=1) + 1e-5) - np.sqrt(y.var(1, ddof=1) + 1e-5)) ** 2)
            expected["global"] += (means + deviations) / 2
            expected["local"] += np.mean((x - attended(c, s, sample, layer)) ** 2) / 2
            expected["content"] += np.mean((normalised(x) - normalised(z)) ** 2) / 2
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].item() == pytest.approx(value, rel=1e-3), name


@torch.no_grad()
def test_a_step_attends_to_the_positions_of_its_seed(network):
    content, style = images()
    c, s = network.encoder(content), network.encoder(style)
    made = train.target(c[:2], s[:2], 100, 5)
    chosen = torch.randperm(16 * 16, generator=torch.Generator().manual_seed(5))[:100].numpy()
    expected = attended(c, s, 1, 1, chosen)
    np.testing.assert_allclose(made[1].flatten(1).numpy(), expected, rtol=1e-2, atol=1e-3)
    one, other = (
        train.adaattn_losses(with_options(network, seed=seed, samples=50), content, style) for seed in (5, 6)
    )
    assert one["local"] != other["local"]


def test_targets_and_the_encoder_are_not_learned(network):
    terms = train.adaattn_losses(network, *images())
    sum(terms.values()).backward()
    learned = {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert learned == {"decoder", "transformer", "adaattn_3"}
    network.zero_grad(set_to_none=True)


def test_two_epochs_are_at_the_full_rate():
    rates = [train.rate(1.0, step, 50) for step in (0, 19, 20, 29, 30, 40, 49)]
    assert rates == pytest.approx([1, 1, 0.3, 0.3, 0.09, 0.027, 0.027])


def test_initial_weights():
    network = model.AdaAttN((8, 16, 32, 64, 64))
    vgg.draw(network, partial(torch.nn.init.normal_, std=0.02))
    layer = network.transformer.attn_adain_5_1.f
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not layer.bias.any()
