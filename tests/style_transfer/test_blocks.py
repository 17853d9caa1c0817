"""The shared pieces against second derivations."""

import math

import torch
import torch.nn.functional as F

from style_transfer.core import vgg
from style_transfer.core.blocks import StyleAttention, adain, attend, grid, mean_std, merge, mvn, positions


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_statistics():
    x = randn(2, 3, 4, 5)
    mean, std = mean_std(x, eps=0.1)
    values = x[1, 2].flatten().tolist()
    m = sum(values) / 20
    assert math.isclose(mean[1, 2], m, abs_tol=1e-6)
    assert math.isclose(std[1, 2], math.sqrt(sum((v - m) ** 2 for v in values) / 19 + 0.1), rel_tol=1e-5)
    torch.testing.assert_close(mvn(x).std((2, 3)), torch.ones(2, 3), rtol=1e-4, atol=0)
    assert (mvn(torch.full((1, 1, 3, 3), 7.0)) == 0).all()


def test_adain_has_the_statistics_of_the_style():
    content, style = randn(2, 3, 8, 9), 3 + 2 * randn(2, 3, 4, 5, seed=1)
    made = mean_std(adain(content, *mean_std(style)))
    for got, expected in zip(made, mean_std(style)):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_positions_and_back():
    x = randn(2, 3, 4, 5)
    assert torch.equal(positions(x)[1, 7], x[1, :, 1, 2])
    assert torch.equal(grid(positions(x), (4, 5)), x)


def test_attention_is_a_softmax_without_scaling():
    query, key, value = randn(2, 5, 16), randn(2, 7, 16, seed=1), randn(2, 7, 3, seed=2)
    logits = torch.einsum("bnk,bmk->bnm", query, key)
    share = logits.exp() / logits.exp().sum(2, keepdim=True)
    torch.testing.assert_close(attend(query, key, value), torch.einsum("bnm,bmc->bnc", share, value))


def test_full_precision_under_autocast():
    """float32 for what half precision hands in, and float64 stays float64."""
    query, key, value = (30 * randn(1, 6, 8, seed=seed) for seed in range(3))
    expected = attend(query, key, value)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attend(query, key, value), expected)
        assert attend(*(x.bfloat16() for x in (query, key, value))).dtype == torch.float32
        assert mean_std(randn(1, 2, 3, 3).bfloat16())[1].dtype == torch.float32
    assert mvn(randn(1, 2, 3, 3, dtype=torch.float64)).dtype == torch.float64


def test_style_attention():
    torch.manual_seed(0)
    block, content, style = StyleAttention(4), randn(1, 4, 3, 5), randn(1, 4, 2, 3, seed=1)
    with torch.no_grad():
        got = block(content, block.query(content), *block.key_value(style))
        f, g, h = block.f(mvn(content))[0], block.g(mvn(style))[0], block.h(style)[0]
        for y, x in ((0, 0), (2, 4)):
            share = torch.stack([f[:, y, x] @ g[:, i, j] for i in range(2) for j in range(3)]).softmax(0)
            mixed = sum(w * h[:, n // 3, n % 3] for n, w in enumerate(share))
            expected = content[0, :, y, x] + block.out_conv(mixed[None, :, None, None])[0, :, 0, 0]
            torch.testing.assert_close(got[0, :, y, x], expected)


def test_merge_doubles_and_follows_odd_sizes():
    coarse = randn(1, 1, 2, 3)
    doubled = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(merge(torch.zeros(1, 1, 4, 6), coarse), doubled)
    assert merge(torch.zeros(1, 1, 3, 5), coarse).shape == (1, 1, 3, 5)


def test_encoder_layer_by_layer():
    """Spelled out with functions and the released indices."""
    torch.manual_seed(0)
    encoder, images = vgg.Encoder((2, 3, 4, 5, 6)), randn(2, 3, 37, 50)
    assert len(encoder) == 53
    parameters = dict(encoder.named_parameters())

    def layer(x, index):
        x = F.conv2d(
            F.pad(x, (1, 1, 1, 1), mode="reflect"), *(parameters[f"{index}.{p}"] for p in ("weight", "bias"))
        )
        return F.relu(x)

    x = F.conv2d(images, parameters["0.weight"], parameters["0.bias"])
    stages, expected = [(2, 5), (9, 12), (16, 19, 22, 25), (29, 32, 35, 38), (42, 45, 48, 51)], []
    for number, indices in enumerate(stages):
        if number:
            x = F.max_pool2d(x, 2, ceil_mode=True)
        for index in indices:
            x = layer(x, index)
            if index == indices[0]:
                expected.append(x)
    got = encoder(images)
    assert [tuple(x.shape[2:]) for x in got] == [(37, 50), (19, 25), (10, 13), (5, 7), (3, 4)]
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert len(encoder(images, 4)) == 4


def test_decoder_layout():
    decoder = vgg.decoder((2, 3, 4, 5))
    convolutions = {
        i: tuple(layer.weight.shape[:2]) for i, layer in enumerate(decoder) if hasattr(layer, "weight")
    }
    assert convolutions == {
        1: (4, 5), 5: (4, 4), 8: (4, 4), 11: (4, 4), 14: (3, 4),
        18: (3, 3), 21: (2, 3), 25: (2, 2), 28: (3, 2),
    }  # fmt: skip
    assert [i for i, layer in enumerate(decoder) if isinstance(layer, torch.nn.Upsample)] == [3, 16, 23]
    images = decoder(100 * randn(1, 5, 3, 4))
    assert images.shape == (1, 3, 24, 32) and images.min() < 0  # nothing cuts off below
