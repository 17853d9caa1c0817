"""Embeddings of images whose cosines people cite as similarity of style or content: CSD, CLIP, DINO

    CSD    style: CLIP's ViT and a projection that was taught styles (Somepalli et al., ECCV 2024); its file
    CLIP   the image encoder and its projection, a folder in transformers' form
    DINO   the class token of DINO or DINOv2, a folder in transformers' form

From local files only. Images go in as the networks were taught: bicubic to their square, normalised.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer
from transformers import AutoConfig, AutoModel
from transformers import image_utils as usual

from evaluation.core.errors import UserError, refused
from evaluation.core.tensors import check_finite, read_tensors

HEAD = 64  # channels of an attention head of CLIP's transformers
UNFIT = (KeyError, RuntimeError, ValueError, TypeError, OSError, AttributeError)


def load(path: str | Path, flag: str, device: str, dtype: torch.dtype) -> tuple[str, Callable]:
    """-> name, function of images [B,3,H,W] in [0,1] -> [B,width]; raises UserError that names the flag."""
    path = Path(path)
    name, network, run, size, mean, std = (csd if path.is_file() else folder)(path, flag)
    network.eval().requires_grad_(False).to(device, dtype)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))

    def embed(images):
        images = F.interpolate(images.float(), (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return run(((images - mean) / std).to(dtype))

    return name, embed


def csd(path: Path, flag: str):
    """The released checkpoint: `backbone.` is CLIP's visual transformer, `last_layer_style` [width,D]."""
    tensors = read_tensors(path)
    with refused(f"{flag} {path}: not the weights of CSD, nor a folder of CLIP or DINO", *UNFIT):
        projection = tensors["last_layer_style"]
        body = {k.removeprefix("backbone."): t for k, t in tensors.items() if k.startswith("backbone.")}
        width, _, patch, _ = body["conv1.weight"].shape
        size = patch * round((len(body["positional_embedding"]) - 1) ** 0.5)
        blocks = {found[1] for key in body if (found := re.match(r"transformer\.resblocks\.(\d+)\.", key))}
        ratio = len(body["transformer.resblocks.0.mlp.c_fc.weight"]) / width
        heads = max(1, width // HEAD)
        sizes = (size, patch, width, len(blocks), heads, ratio)
        network = VisionTransformer(*sizes, output_dim=projection.shape[1], act_layer=QuickGELU)
        network.load_state_dict(body | {"proj": projection})
    return "CSD", network, network, size, usual.OPENAI_CLIP_MEAN, usual.OPENAI_CLIP_STD


def folder(path: Path, flag: str):
    """CLIP or DINO; the size is that of the configuration, for DINOv2, whose is large, 224 pixels."""
    how = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    with refused(f"{flag} {path}: no CLIP or DINO in transformers' form", *UNFIT):
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        network, info = AutoModel.from_pretrained(path, **how)
        clip = config.model_type == "clip"
        size = min(224, (config.vision_config if clip else config).image_size)
    if missing := sorted(key for key in info["missing_keys"] if "pooler" not in key):
        raise UserError(f"{flag} {path}: not all weights are there; {missing[0]} is missing")
    check_finite(network.state_dict(), path)

    def embed(images):
        if clip:
            return network.get_image_features(images).pooler_output
        return network(images).last_hidden_state[:, 0]

    if clip:
        return "CLIP", network, embed, size, usual.OPENAI_CLIP_MEAN, usual.OPENAI_CLIP_STD
    return "DINO", network, embed, size, usual.IMAGENET_DEFAULT_MEAN, usual.IMAGENET_DEFAULT_STD
