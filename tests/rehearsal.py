"""The files of the real benchmark, made up: released formats and full sizes, random weights and pictures

    python -m tests.rehearsal FOLDER

`scripts/rehearse.sh` begins with it. FOLDER gets `DATA` (51 themes x 20 objects x 20 JPEGs of 512 pixels), in
`checkpoints/` SD 1.5 as a folder, both judges, what new ones start from, and Inception, and `world.yaml`, a
protocol of two themes x two objects x one seed. 10 GB of memory, 6 GB of disk.
"""

import shutil
import sys
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import timm
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from evaluation import canvas, protocol
from evaluation.core.files import write_json
from tests import full_size


def data(root: Path) -> None:
    """A picture for every object, of which the images of all themes and numbers are links."""
    root.mkdir()
    noise = np.random.default_rng(0)
    for obj in canvas.OBJECTS:
        small = Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        small.resize((512, 512), Image.Resampling.BICUBIC).save(picture := root / f".{obj}.jpg", quality=95)
        for theme, number in product(canvas.THEMES, canvas.NUMBERS):
            path = canvas.image_path(root, theme, obj, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(picture)


def judges(folder: Path) -> None:
    """The two released classifiers, and what new ones start from."""
    make = lambda count: timm.create_model("vit_large_patch16_224", num_classes=count).state_dict()  # noqa: E731
    for name, labels in (("style50", canvas.THEMES), ("style50_cls", canvas.OBJECTS)):
        torch.save({"epoch": 0, "model_state_dict": make(len(labels))}, folder / f"{name}.pth")
    save_file(make(0), folder / "vit_large_patch16_224.augreg_in21k.safetensors")


def inception(path: Path) -> None:
    """torch-fidelity's network, which is built with weights only: without those it would download."""
    network = fidelity.FeatureExtractorInceptionV3
    with patch.object(fidelity, "load_state_dict_from_url"), patch.object(network, "load_state_dict"):
        torch.save(network("inception", ["2048"]).state_dict(), path)


def main(folder: Path) -> None:
    for name in ("DATA", "checkpoints"):  # of an attempt that was stopped
        shutil.rmtree(folder / name, ignore_errors=True)
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    data(folder / "DATA")
    torch.manual_seed(0)
    judges(checkpoints)
    inception(checkpoints / "weights-inception-2015-12-05-6726825d.pth")
    full_size.build(checkpoints / "sd15")
    small = {"themes": ("Rust", "Sketch"), "objects": ("Cats", "Sea"), "seeds": (188,), "steps": 2}
    small |= {"targets": ("Sketch",), "precision": "float32", "name": "world"}
    world = asdict(replace(protocol.load("canvas"), **small))
    world = {key: list(value) if isinstance(value, tuple) else value for key, value in world.items()}
    OmegaConf.save(OmegaConf.create(world), folder / "world.yaml")
    card = {"variant": "canvas", "protocol": str(folder / "world.yaml"), "data": str(folder / "DATA")}
    write_json(checkpoints / "sd15" / "canvas.json", card)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
