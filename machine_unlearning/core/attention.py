"""Attention maps: what every query looks at, kept while the UNet runs."""

from contextlib import contextmanager

from torch import nn


class Explicit:
    """An attention processor that computes softmax(scale q k^T) v in the open and keeps the softmax."""

    def __init__(self, maps: dict, name: str):
        self.maps, self.name = maps, name

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projections = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in projections)
        probabilities = (attn.scale * q @ k.transpose(-1, -2)).softmax(-1)
        self.maps[self.name] = probabilities
        mixed = (probabilities @ v).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed))


@contextmanager
def recorded(unet: nn.Module, wanted):
    """Within, the dict yielded holds, after each UNet call, softmax maps [B,heads,Q,K] by module name.

    `wanted(name)` chooses among modules such as `down_blocks.0.attentions.0.transformer_blocks.0.attn2`
    (`attn1` looks at the image, `attn2` at the prompt). Maps carry gradients; other layers stay fused.
    """
    before, maps = unet.attn_processors, {}
    names = [key.removesuffix(".processor") for key in before]
    if not any(map(wanted, names)):
        raise ValueError("no attention layer of this UNet is wanted")
    unet.set_attn_processor(
        {
            f"{name}.processor": Explicit(maps, name) if wanted(name) else before[f"{name}.processor"]
            for name in names
        }
    )
    try:
        yield maps
    finally:
        unet.set_attn_processor(before)


def place(ids: list[int], wanted: list[int]) -> list[int]:
    """Positions of the first occurrence of the tokens `wanted`, in a row, in a prompt's ids; [] if none."""
    for start in range(len(ids) - len(wanted) + 1):
        if ids[start : start + len(wanted)] == wanted:
            return [start + i for i in range(len(wanted))]
    return []


def tokens_of(tokenizer, prompt: str, words: str) -> list[int]:
    """Positions, in the encoded prompt (0 is start-of-text), of the tokens that spell `words` in it.

    Raises ValueError if the words do not occur. Tokens are compared, so "Cats" is not found in "Catsuit".
    """
    if not (positions := place(tokenizer(prompt)["input_ids"], spelled(tokenizer, words))):
        raise ValueError(f"{words!r} does not occur in {prompt!r}")
    return positions


def spelled(tokenizer, words: str) -> list[int]:
    return tokenizer(words, add_special_tokens=False)["input_ids"]
