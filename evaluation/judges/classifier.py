"""The judges: a vision transformer that names the style, and one that names the object, of an image

    logits = head(pool(ViT((image - mean) / std)))        image in [0,1], resized to a square, ratio not kept

Files are ours (safetensors, whose metadata says task, labels and architecture) or others', such as the
published `.pth`: weights of a timm network, whose labels follow from their number. Nothing is downloaded.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.layers import PatchEmbed
from torch import nn

from evaluation import canvas
from evaluation.canvas import TASKS
from evaluation.core.errors import UserError, refused
from evaluation.core.files import check_keys
from evaluation.core.tensors import is_safetensors, read_metadata, read_tensors, save_tensors

NUMBER = int | float
FIELDS = {"task": str, "labels": list, "model": str, "arguments": dict, "mean": NUMBER, "std": NUMBER}
UNNAMED = (LookupError, ValueError, TypeError, ZeroDivisionError)  # where weights lack a name or a shape
UNFIT = (AssertionError, RuntimeError, TypeError, ValueError)  # what timm raises for arguments or weights

ALL_THEMES = sorted([*canvas.THEMES, *canvas.UNUSED_STYLES])
ALL_THEMES.remove("Palette_Knife")  # the published list of 61 is alphabetical but for this name
ALL_THEMES.insert(ALL_THEMES.index("Magic_Cube"), "Palette_Knife")

PUBLISHED_LABELS = {"style": [canvas.THEMES, ALL_THEMES], "object": [canvas.OBJECTS]}  # their number tells


class ConvStem(PatchEmbed):
    """Patches of 8 pixels made by three strided convolutions: small networks learn shapes sooner."""

    def __init__(self, *args, embed_dim: int, **kwargs):
        super().__init__(*args, embed_dim=embed_dim, **kwargs)
        if self.patch_size != (8, 8):
            raise ValueError("a convolutional stem makes patches of 8 pixels")
        layers = []
        for inner, outer in itertools.pairwise((3, embed_dim // 4, embed_dim // 2, embed_dim)):
            layers += [nn.Conv2d(inner, outer, 3, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.GELU()]
        self.proj = nn.Sequential(*layers, nn.Conv2d(embed_dim, embed_dim, 1))


class Classifier(nn.Module):
    """A timm vision transformer with its task, its labels and its own preprocessing.

    `model` and `arguments` are timm's; the argument `embed_layer: conv` stands for `ConvStem`. `labels` are
    in the order of the outputs; `mean` and `std` hold for all channels of images in [0,1].
    """

    def __init__(self, task: str, labels, model: str, arguments: dict, mean: float = 0.5, std: float = 0.5):
        super().__init__()
        self.task, self.labels = task, list(labels)
        self.model, self.arguments = model, dict(arguments)
        self.mean, self.std = mean, std
        if not timm.is_model(str(model)):  # timm would look for other names on the network
            raise ValueError(f"no model is called {model}")
        built = {k: ConvStem if (k, v) == ("embed_layer", "conv") else v for k, v in arguments.items()}
        self.vit = timm.create_model(model, pretrained=False, num_classes=len(labels), **built)

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return self.vit.patch_embed.img_size[0]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,size,size] in [0,1] -> [B,width]: pooled and normalised, what the head sees."""
        tokens = self.vit.forward_features((images - self.mean) / self.std)
        return self.vit.forward_head(tokens, pre_logits=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B,3,size,size] in [0,1] -> logits [B,len(labels)]."""
        return self.vit.head(self.features(images))

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """A PIL image -> uint8 [3,size,size]; divide by 255 before `forward`."""
        return preprocess(image, self.size)

    def save(self, path: str | Path, half: bool = True, **extra) -> None:
        """Writes a safetensors file, fp16 if `half`; `extra` are JSON-like values for its metadata."""
        about = {key: getattr(self, key) for key in (*FIELDS, "size")} | extra
        weights = self.vit.state_dict()
        if half:
            weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
        save_tensors(path, weights, {"classifier": json.dumps(about)})


def preprocess(image: Image.Image, size: int) -> torch.Tensor:
    """A PIL image -> uint8 [3,size,size], bilinear and antialiased; as for the published files, both sides
    are resized and the ratio is not kept."""
    image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def load_classifier(path: str | Path, task: str, labels=None, device="cpu", arguments=None) -> Classifier:
    """The classifier of `task` ("style" or "object") in a file of ours or of others.

    `labels`, if given, must be those of a file of ours, and name the outputs of another (default: the
    benchmark's). `arguments` are timm's, for what shapes in such a file do not tell: `num_heads` is width /
    64 unless given. Raises UserError if the file cannot be read or was made for something else.
    """
    weights = read_tensors(path)
    about = _stated(path, task, labels) or _published(path, weights, task, labels, arguments or {})
    with refused(f"{path}: its weights do not fit the network that it names", *UNFIT):
        classifier = Classifier(**about)
        classifier.vit.load_state_dict(weights)
    return classifier.eval().requires_grad_(False).to(device)


def load_backbone(classifier: Classifier, path: str) -> None:
    """Fills all but the head from a file with timm's names; raises UserError."""
    weights, fresh = read_tensors(path), classifier.vit.state_dict()
    weights |= {name: value for name, value in fresh.items() if name.startswith("head.")}
    if odd := sorted(fresh.keys() ^ weights.keys()):
        count = f"{len(odd)} weights do not match, first {odd[0]}"
        raise UserError(f"init={path}: not a {classifier.model}; {count}")
    with refused(f"init={path}: not a {classifier.model}", *UNFIT):
        classifier.vit.load_state_dict(weights)


def metadata(path: str | Path) -> dict:
    """What a file of ours says of itself: task, labels, architecture, the `extra` of `Classifier.save`.

    {} for a file of others; UserError for a damaged one.
    """
    if not is_safetensors(path) or not (about := read_metadata(path, "classifier")):
        return {}
    check_keys(path, about, FIELDS)
    named = about["task"] in TASKS and all(isinstance(label, str) for label in about["labels"])
    if not (named and math.isfinite(about["mean"]) and 0 < about["std"] < math.inf):
        raise UserError(f"{path}: damaged (its task, labels, mean or std are none); get it again")
    return about


def _stated(path, task: str, labels) -> dict:
    """The arguments of `Classifier` in a file of ours."""
    about = metadata(path)
    if about and about["task"] != task:
        made = f"a classifier of the {about['task']} task"
        raise UserError(f"{path}: {made}; one of the {task} task was expected")
    if about and labels is not None and list(labels) != about["labels"]:
        has, wanted = (f"{len(names)} ({', '.join(names[:3])} ...)" for names in (about["labels"], labels))
        raise UserError(f"{path}: a classifier of other labels; it has {has}, expected {wanted}")
    return {key: about[key] for key in FIELDS if about}


def _published(path, weights: dict, task: str, labels, arguments: dict) -> dict:
    """The arguments of `Classifier` for a file of others."""
    with refused(f"{path}: not a classifier; expected the weights of a ViT, under timm's names", *UNNAMED):
        arguments = _architecture(weights) | arguments
        outputs = len(weights["head.weight"])
    known = {len(names): names for names in ([labels] if labels else PUBLISHED_LABELS[task])}
    if outputs not in known:
        wanted = " or ".join(map(str, known))
        raise UserError(f"{path}: has {outputs} classes; one of the {task} task with {wanted} was expected")
    return {"task": task, "labels": known[outputs], "model": "vit_base_patch16_224", "arguments": arguments}


def _architecture(weights: dict) -> dict:
    """timm's arguments of a plain vision transformer with a class token, from the shapes of its weights."""
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    return {
        "img_size": patch * math.isqrt(weights["pos_embed"].shape[1] - 1),
        "patch_size": patch,
        "embed_dim": width,
        "depth": len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        "num_heads": max(1, width // 64),
        "mlp_ratio": len(weights["blocks.0.mlp.fc1.weight"]) / width,
    }
