"""Trains the miniature's VGG encoder on the labels of its images, once for all methods

    python -m style_transfer.train_encoder --data data/mini-train --per-object 150 \
        --out checkpoints/mini/style_transfer/vgg_normalised.pth

Two linear heads on relu5_4 name style and object. The batch normalisation that sixteen layers need to learn
is folded into them afterwards, and every channel scaled so that its mean over images and positions is 1: the
"normalised" of the released file, which makes the layers' losses comparable (Gatys et al., CVPR 2016).
Images 19 and 20 of every folder are never trained on.
"""

import argparse
import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import nn
from tqdm import tqdm

from evaluation import canvas, mini_canvas
from evaluation.classifier_data import Labelled, augment, batches, generator, in_memory, order
from evaluation.config import override
from evaluation.errors import Finished, command
from evaluation.images import CanvasImages
from evaluation.mini_objects import SIZE
from evaluation.train_classifier import rate
from style_transfer.core import vgg
from style_transfer.core.training import save_file

SETTINGS = Path(__file__).parent / "encoder.yaml"
MOVES = {"flip": True, "shift": 0.1, "zoom": 0.1, "blur": 0.2}  # of augment
CALIBRATION = 20  # batches from which the channels' means are taken


def with_batch_norm(encoder: vgg.Encoder) -> nn.Sequential:
    """The encoder with a batch normalisation after each 3x3 convolution; it shares the convolutions."""
    layers = []
    for layer in encoder:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layers.append(nn.BatchNorm2d(layer.out_channels))
    return nn.Sequential(*layers)


@torch.no_grad()
def fold(network: nn.Sequential) -> None:
    """Puts every batch normalisation, as in evaluation mode, into the convolution before it."""
    for convolution, norm in itertools.pairwise(network):
        if isinstance(norm, nn.BatchNorm2d):
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            convolution.weight *= factor[:, None, None, None]
            convolution.bias.sub_(norm.running_mean).mul_(factor).add_(norm.bias)


@torch.no_grad()
def normalise(encoder: vgg.Encoder, images: torch.Tensor) -> None:
    """Scales every channel that is ever active to mean 1 over `images` [B,3,H,W], and undoes it behind."""
    before = torch.ones(3)
    for layer in encoder:
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.weight *= before[:, None, None]
            mean = F.relu(layer(images)).mean((0, 2, 3))
            before = torch.where(mean > 1e-4, mean, 1.0)
            layer.weight /= before[:, None, None, None]
            layer.bias /= before
        images = layer(images)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="mini", help="folder of the miniature's images, or mini")
    parser.add_argument("--per-object", type=int, default=20, help="images in each folder (20)")
    parser.add_argument("--out", type=Path, required=True, help="file to write, vgg_normalised.pth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of encoder.yaml")
    args = parser.parse_intermixed_args(argv)
    if args.out.exists():
        raise Finished(f"{args.out}: already trained; remove it to train it anew")
    s = override(OmegaConf.load(SETTINGS), args.overrides)
    torch.manual_seed(args.seed)
    themes, objects = mini_canvas.THEMES, mini_canvas.OBJECTS
    numbers = [i for i in range(1, args.per_object + 1) if i not in canvas.TEST]
    images = CanvasImages(args.data, itertools.product(themes, objects), numbers, SIZE)
    data = in_memory(Labelled(images, themes, objects, SIZE), 4, 2)
    encoder = vgg.Encoder(vgg.scaled(s.width))
    network = with_batch_norm(encoder)
    heads = nn.ModuleList(nn.Linear(encoder[51].out_channels, len(names)) for names in (themes, objects))
    weights = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, s.lr, weight_decay=s.weight_decay)
    stream = batches(data, order(len(data), s.batch, args.seed), 2)
    bar = tqdm(range(s.steps), "encoder", disable=None)
    for step in bar:
        pixels, labels = next(stream)
        pixels = augment(pixels.float().div(255), **MOVES, chance=generator(args.seed + 1, step))
        deep = network(pixels).mean((2, 3))
        loss = sum(F.cross_entropy(head(deep), labels[:, task]) for task, head in enumerate(heads))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate(step, s.steps, s.lr, s.warmup)
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    fold(network.eval())
    rows = torch.cat([next(stream)[0] for _ in range(CALIBRATION)])
    report(encoder, heads, args.data, themes, objects)
    normalise(encoder, rows.float().div(255))
    save_file(args.out, encoder, half=True)


@torch.no_grad()
def report(encoder, heads, data: str, themes, objects) -> None:
    """Prints how often the heads are right about images 19 and 20."""
    images = CanvasImages(data, itertools.product(themes, objects), canvas.TEST, SIZE)
    held_out = in_memory(Labelled(images, themes, objects, SIZE), 4, 2)
    pixels, labels = held_out[:]
    deep = nn.Sequential.forward(encoder, pixels.float().div(255)).mean((2, 3))
    right = [(head(deep).argmax(1) == labels[:, i]).float().mean() for i, head in enumerate(heads)]
    print(f"held-out images: style {right[0]:.1%}, object {right[1]:.1%} of {len(labels)}")


if __name__ == "__main__":
    main()
