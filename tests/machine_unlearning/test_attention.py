"""Recorded attention: the same output as the fused kernels, probabilities, gradients, token positions."""

import pytest
import torch

from diffusion_model_finetuning.core.sd import eps, load_sd
from machine_unlearning.core import attention


@pytest.fixture
def sd(tiny_sd):
    return load_sd(tiny_sd)


def test_recording_changes_nothing_and_ends(sd):
    x, text = torch.randn(2, 4, 8, 8), sd.embed(["A Cats image in Sketch style.", "Rust style"])
    plain = eps(sd.unet, x, 5, text)
    with attention.recorded(sd.unet, lambda name: name.endswith("attn2")) as maps:
        torch.testing.assert_close(eps(sd.unet, x, 5, text), plain)
    assert maps and all(name.endswith("attn2") for name in maps)
    for probabilities in maps.values():
        batch, heads, _, keys = probabilities.shape
        assert (batch, heads, keys) == (2, 2, text.shape[1])
        torch.testing.assert_close(probabilities.sum(-1), torch.ones_like(probabilities[..., 0]))
    maps.clear()
    eps(sd.unet, x, 5, text)
    assert not maps


def test_maps_carry_gradients(sd):
    text = sd.embed(["Sketch style"]).requires_grad_()
    with attention.recorded(sd.unet, lambda name: name.endswith("attn2")) as maps:
        eps(sd.unet, torch.randn(1, 4, 8, 8), 5, text)
    sum(probabilities[..., 1].sum() for probabilities in maps.values()).backward()
    assert text.grad.abs().sum() > 0


def test_a_wish_that_no_layer_meets(sd):
    with (
        pytest.raises(ValueError, match="no attention layer"),
        attention.recorded(sd.unet, lambda name: False),
    ):
        pass


def test_token_positions(sd):
    prompt = "A Cats image in Neon Lines style."
    assert attention.tokens_of(sd.tokenizer, prompt, "Cats") == [2]
    positions = attention.tokens_of(sd.tokenizer, prompt, "Neon Lines style")
    ids = sd.tokenizer(prompt)["input_ids"]
    assert sd.tokenizer.decode([ids[i] for i in positions]) == "neon lines style"
    with pytest.raises(ValueError, match="does not occur"):
        attention.tokens_of(sd.tokenizer, prompt, "Rust")
