"""What second instances of several methods need: narrower networks, other inputs, gradients by name."""

import torch

from tests.parity.test_mu_esd import ABAR
from tests.seeded_weights import seeded_input

DOWN = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
UP = "up_blocks.1.attentions.1.transformer_blocks.0.attn2"
WIDTH, LENGTH = 24, 11  # of prompt embeddings
abar = ABAR.double()


def narrow(config):
    config |= {"block_out_channels": [16, 32], "cross_attention_dim": WIDTH, "attention_head_dim": 4}
    return config


def drawn(name, spec):
    values = seeded_input(name, spec["shape"], spec["seed"], spec["low"], spec["high"])
    return torch.from_numpy(values).double()


def listed(d, shapes):
    """Gives the inputs of a list other shapes and seeds -> short name: tensor."""
    for number, spec in enumerate(d["inputs"]):
        spec |= {"shape": shapes[spec["name"].rpartition(".")[2]], "seed": 3 + number}
    return {spec["name"].rpartition(".")[2]: drawn(spec["name"], spec) for spec in d["inputs"]}


def tabled(d, changes):
    """The same for a table of inputs, of which some are numbers."""
    for name, change in changes.items():
        d["inputs"][name] |= {"shape": change, "seed": 4} if isinstance(change, tuple) else {"value": change}
    return {
        name: spec["value"] if "value" in spec else drawn(spec["seeded_input_name"], spec)
        for name, spec in d["inputs"].items()
    }


def noised(latents, noise, timesteps):
    a = abar[torch.tensor(timesteps)].view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def gradients(loss, weights):
    """Name -> gradient, of the weights that receive one."""
    got = torch.autograd.grad(loss, [*weights.values()], allow_unused=True, retain_graph=True)
    return {name: gradient for name, gradient in zip(weights, got, strict=True) if gradient is not None}


def norm(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors]).norm()


def chosen(unet, *words):
    """Name -> weight of those whose names have one of the words, with gradients on for these alone."""
    weights = {n: w for n, w in unet.named_parameters() if any(word in n for word in words)}
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights
