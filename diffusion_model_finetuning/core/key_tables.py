"""Which CompVis module is which diffusers module, for the UNet and the autoencoder of Stable Diffusion 1.

    UNet         input_blocks.4.0.in_layers.2   down_blocks.1.resnets.0.conv1
    autoencoder  decoder.up.3.block.0.norm1     decoder.up_blocks.0.resnets.0.norm1

A table maps CompVis module names to diffusers ones and is read in both directions. It is made from the keys
of a whole network in either layout, so SD 1.5, InstructPix2Pix and the miniature need none of their own.
"""

import re

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def unet_sizes(keys) -> tuple[int, int, set[int]]:
    """-> resolution levels, residual blocks a level, levels with attention, from either layout's keys."""
    text = "\n".join(keys)
    if resnets := re.findall(r"^down_blocks\.(\d+)\.resnets\.(\d+)\.", text, re.M):
        levels, blocks = (max(map(int, numbers)) + 1 for numbers in zip(*resnets))
        return levels, blocks, set(map(int, re.findall(r"^down_blocks\.(\d+)\.attentions\.0\.", text, re.M)))
    numbers = [int(n) for n in re.findall(r"^input_blocks\.(\d+)\.", text, re.M)]
    downsamplers = [int(n) for n in re.findall(r"^input_blocks\.(\d+)\.0\.op\.weight$", text, re.M)]
    blocks = min(downsamplers, default=max(numbers, default=0) + 1) - 1
    attended = {int(n) for n in re.findall(r"^input_blocks\.(\d+)\.1\.norm\.weight$", text, re.M)}
    return len(downsamplers) + 1, blocks, {n // (blocks + 1) for n in attended}


def unet_table(keys) -> dict[str, str]:
    """CompVis module -> diffusers module, from the keys of a whole UNet in either layout, without prefix."""
    levels, blocks, attended = unet_sizes(keys)
    resnets = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    table = ENDS | {"middle_block.1": "mid_block.attentions.0"}
    for i in range(levels):
        for j in range(blocks):
            n = i * (blocks + 1) + j + 1
            resnets[f"input_blocks.{n}.0"] = f"down_blocks.{i}.resnets.{j}"
            if i in attended:
                table[f"input_blocks.{n}.1"] = f"down_blocks.{i}.attentions.{j}"
        above = levels - 1 - i in attended  # up blocks count from the lowest resolution
        for j in range(blocks + 1):
            n = i * (blocks + 1) + j
            resnets[f"output_blocks.{n}.0"] = f"up_blocks.{i}.resnets.{j}"
            if above:
                table[f"output_blocks.{n}.1"] = f"up_blocks.{i}.attentions.{j}"
        if i < levels - 1:
            n = (i + 1) * (blocks + 1)
            table[f"input_blocks.{n}.0.op"] = f"down_blocks.{i}.downsamplers.0.conv"
            table[f"output_blocks.{n - 1}.{1 + above}.conv"] = f"up_blocks.{i}.upsamplers.0.conv"
    inner = {f"{a}.{c}": f"{b}.{d}" for a, b in resnets.items() for c, d in RESNET.items()}
    return table | inner


def vae_table(keys) -> dict[str, str]:
    """CompVis module -> diffusers module, from the keys of a whole autoencoder in either layout."""
    found = re.findall(
        r"^encoder\.down(?:_blocks)?\.(\d+)\.(?:block|resnets)\.(\d+)\.", "\n".join(keys), re.M
    )
    levels, blocks = (max(map(int, numbers)) + 1 for numbers in zip(*found)) if found else (0, 0)
    table = {name: name for name in ("quant_conv", "post_quant_conv")}
    resnets = {}
    for side in ("encoder", "decoder"):
        table |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        table[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        resnets |= {f"{side}.mid.block_{j + 1}": f"{side}.mid_block.resnets.{j}" for j in range(2)}
        attention = f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0"
        table |= {f"{attention[0]}.{a}": f"{attention[1]}.{b}" for a, b in VAE_ATTENTION.items()}
    for i in range(levels):
        up = levels - 1 - i  # CompVis numbers the decoder's levels by resolution, diffusers by order
        for j in range(blocks):
            resnets[f"encoder.down.{i}.block.{j}"] = f"encoder.down_blocks.{i}.resnets.{j}"
        for j in range(blocks + 1):
            resnets[f"decoder.up.{i}.block.{j}"] = f"decoder.up_blocks.{up}.resnets.{j}"
        if i < levels - 1:
            table[f"encoder.down.{i}.downsample.conv"] = f"encoder.down_blocks.{i}.downsamplers.0.conv"
        if i > 0:
            table[f"decoder.up.{i}.upsample.conv"] = f"decoder.up_blocks.{up}.upsamplers.0.conv"
    for part in ("norm1", "conv1", "norm2", "conv2"):
        table |= {f"{a}.{part}": f"{b}.{part}" for a, b in resnets.items()}
    return table | {f"{a}.nin_shortcut": f"{b}.conv_shortcut" for a, b in resnets.items()}


def rename(key: str, table: dict[str, str]) -> str:
    """Replaces the longest leading run of a dotted key that the table has; KeyError if it has none."""
    head = key
    while head not in table:
        head, dot, _ = head.rpartition(".")
        if not dot:
            raise KeyError(key)
    return table[head] + key[len(head) :]


def inverse(table: dict[str, str]) -> dict[str, str]:
    return {value: key for key, value in table.items()}
