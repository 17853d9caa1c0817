"""What the CompVis fixtures describe, as tensors and diffusers networks."""

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from tests.seeded_weights import seeded_input, seeded_state_dict


def inputs(description):
    """Name -> tensor or plain value."""
    return {
        name: spec["value"]
        if "value" in spec
        else torch.from_numpy(
            seeded_input(spec["seeded_input_name"], spec["shape"], spec["seed"], spec["low"], spec["high"])
        )
        for name, spec in description["inputs"].items()
    }


def weights(description, group):
    """The state dict of one group without its prefix, and with it."""
    spec = description["weights"][group]
    state = seeded_state_dict(spec["shapes"], spec["seed"])
    assert all(key.startswith(spec["prefix"]) for key in state)
    return {key.removeprefix(spec["prefix"]): tensor for key, tensor in state.items()}


def build_unet(config):
    """The diffusers network of a CompVis UNetModel's arguments, built from the rules in the formats' spec."""
    levels = len(config["channel_mult"])
    attended = [2**level in config["attention_resolutions"] for level in range(levels)]
    assert config["use_spatial_transformer"] and not config["legacy"]
    return UNet2DConditionModel(
        sample_size=config["image_size"],
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        block_out_channels=[config["model_channels"] * factor for factor in config["channel_mult"]],
        layers_per_block=config["num_res_blocks"],
        cross_attention_dim=config["context_dim"],
        attention_head_dim=config["num_heads"],
        transformer_layers_per_block=config["transformer_depth"],
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)],
    ).eval()


def close(got, expected, description):
    tolerance = description["tolerance"]
    expected = torch.from_numpy(np.asarray(expected))
    torch.testing.assert_close(got.to(expected.dtype), expected, **tolerance)
