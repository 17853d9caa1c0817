"""Trains the miniature's VGG encoder, and the decoder that mirrors it, once for all methods

    python -m style_transfer.train_encoder --data data/mini-train --per-object 150 \
        --out checkpoints/mini/style_transfer

    L = CE(style) + CE(object) + w |decoder(relu4_1) - image|^2

Two linear heads on relu5_4 name style and object. VGG-19's relu4_1 holds 2.7 times as many numbers as the
image, at an eighth of the width a third as many: taught labels alone, it forgets what a painter needs, so it
is asked for the image too. The batch normalisation that so many layers need to learn is folded into them
afterwards, and every channel scaled so that its mean over images and positions is 1: the "normalised" of the
released file, which makes the layers' losses comparable (Gatys et al., CVPR 2016). Images 19 and 20 of every
folder are never trained on.
"""

import argparse
from pathlib import Path

from omegaconf import OmegaConf

from evaluation.core import flags
from evaluation.core.config import check_limits, override, read_settings
from evaluation.core.errors import Finished, UserError, command, early
from style_transfer.core import cli

SETTINGS = Path(__file__).parent / "encoder.yaml"


def parse(argv=None) -> argparse.Namespace:
    """The flags, and `settings` as they were changed."""
    parser = cli.new_parser("train_encoder", __doc__)
    parser.add_argument("--data", type=flags.data_set, default="mini", help="the miniature's images (mini)")
    parser.add_argument("--per-object", type=flags.whole(), default=20, help="images in each folder (20)")
    parser.add_argument("--out", type=flags.new_folder, required=True, help="folder of the two files")
    flags.add_seed(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of encoder.yaml")
    args = parser.parse_intermixed_args(argv)
    settings = read_settings(SETTINGS)
    limits = settings.pop("limits")
    args.settings = override(OmegaConf.create(settings), args.overrides)
    check_limits(args.settings, limits)
    return args


early(__name__, parse)

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from evaluation import canvas
from evaluation.core.checkpoint import Checkpoint
from evaluation.core.files import digest
from evaluation.core.owner import alone
from evaluation.data.images import CanvasImages
from evaluation.judges.training_data import Labelled, augment, batches, generator, in_memory, order
from evaluation.mini import dataset as mini
from evaluation.mini.objects import SIZE
from evaluation.train_classifier import rate
from style_transfer.core import vgg
from style_transfer.core.training import descend
from style_transfer.core.weights import save_file

MOVES = {"flip": True, "shift": 0.1, "zoom": 0.1, "blur": 0.2}  # of augment
RELU4_1 = vgg.TAPS[3]
CALIBRATION = 20  # batches from which the channels' means are taken


def with_batch_norm(layers) -> nn.Sequential:
    """The layers, with a batch normalisation between every convolution and its ReLU."""
    network = []
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            network.append(nn.BatchNorm2d(network[-1].out_channels))
        network.append(layer)
    return nn.Sequential(*network)


def fold(network: nn.Sequential) -> None:
    """Puts every batch normalisation, as in evaluation mode, into the convolution before it."""
    for convolution, norm in itertools.pairwise(network):
        if isinstance(norm, nn.BatchNorm2d):
            convolution.load_state_dict(fuse_conv_bn_eval(convolution, norm).state_dict())


@torch.no_grad()
def normalise(encoder: vgg.Encoder, decoder: nn.Sequential, images: torch.Tensor) -> None:
    """Scales every channel that is ever active to mean 1 over `images` [B,3,H,W], and undoes it behind, also
    in the decoder of relu4_1."""
    before = torch.ones(3)
    for number, layer in enumerate(encoder, 1):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.weight *= before[:, None, None]
            mean = F.relu(layer(images)).mean((0, 2, 3))
            before = torch.where(mean > 1e-4, mean, 1.0)
            layer.weight /= before[:, None, None, None]
            layer.bias /= before
        images = layer(images)
        if number == RELU4_1:
            decoder[1].weight *= before[:, None, None]


@command
def main(argv=None):
    args = parse(argv)
    encoder, kept = Path(args.out) / vgg.ENCODER, Path(args.out) / ".encoder.pt"
    if encoder.exists():
        kept.unlink(missing_ok=True)  # of a command killed in its last moment
        raise Finished(f"{encoder}: already trained; remove it to train it anew")
    with alone(args.out):
        train(args, encoder, kept)


def train(args, path: Path, kept: Path) -> None:
    """Writes the encoder's file and beside it the decoder's; `kept`: state that a stopped command left."""
    s = args.settings
    torch.manual_seed(args.seed)
    themes, objects = mini.THEMES, mini.OBJECTS
    numbers = [i for i in range(1, args.per_object + 1) if i not in canvas.TEST]

    def labelled(indices) -> Labelled:
        images = CanvasImages(args.data, itertools.product(themes, objects), indices, SIZE)
        return Labelled(images, themes, objects, SIZE)

    held_out, data = labelled(canvas.TEST), in_memory(labelled(numbers), 4, 2)
    encoder, decoder = vgg.Encoder(vgg.scaled(s.width)), vgg.decoder(vgg.scaled(s.width))
    layers = list(encoder)
    shallow, deep = with_batch_norm(layers[:RELU4_1]), with_batch_norm(layers[RELU4_1:])
    inverse = with_batch_norm(decoder)
    heads = nn.ModuleList(nn.Linear(encoder[51].out_channels, len(names)) for names in (themes, objects))
    parts = nn.ModuleList([shallow, deep, inverse, heads])
    optimizer = torch.optim.AdamW(parts.parameters(), s.lr, weight_decay=s.weight_decay)
    identity = {"settings": OmegaConf.to_container(s), "seed": args.seed}
    identity |= {"data": [args.data, args.per_object]}
    checkpoint = Checkpoint(kept, digest(identity), parts=parts, optimizer=optimizer)
    first = checkpoint.resume().get("step", 0)
    stream = batches(data, order(len(data), s.batch, args.seed, first), 2)
    bar = tqdm(range(first, s.steps), "encoder", s.steps, initial=first, disable=None)
    for step in bar:
        pixels, labels = next(stream)
        pixels = augment(pixels.float().div(255), **MOVES, chance=generator(args.seed + 1, step))
        features = shallow(pixels)
        pooled = deep(features).mean((2, 3))
        named = sum(F.cross_entropy(head(pooled), labels[:, task]) for task, head in enumerate(heads))
        painted = F.mse_loss(inverse(features), pixels)
        loss = named + s.image * painted
        if not math.isfinite(loss.item()):
            raise UserError(f"{path}: the loss of step {step} is {loss.item()}; lower lr")
        optimizer.param_groups[0]["lr"] = rate(step, s.steps, s.lr, s.warmup)
        descend(optimizer, loss)
        bar.set_postfix(labels=f"{named.item():.3f}", image=f"{painted.item():.4f}", refresh=False)
        if checkpoint.due():
            checkpoint.save(step=step + 1)
    for network in parts.eval()[:3]:
        fold(network)
    pixels = torch.cat([next(stream)[0] for _ in range(CALIBRATION)]).float().div(255)
    report(encoder, decoder, heads, held_out)
    normalise(encoder, decoder, pixels)
    save_file(path.with_name(vgg.DECODER), decoder, half=True)
    save_file(path, encoder, half=True)  # last: it says that the work is done
    checkpoint.remove()


@torch.no_grad()
def report(encoder, decoder, heads, held_out: Labelled) -> None:
    """Prints how often the heads are right about images 19 and 20, and how well the decoder repaints them."""
    pixels, labels = in_memory(held_out, 4, 2)[:]
    pixels = pixels.float().div(255)
    features = encoder(pixels, 4)[3]
    pooled = nn.Sequential(*list(encoder)[RELU4_1:])(features).mean((2, 3))
    right = [(head(pooled).argmax(1) == labels[:, i]).float().mean() for i, head in enumerate(heads)]
    error = F.mse_loss(decoder(features), pixels) / pixels.var()
    print(f"held-out images: style {right[0]:.1%}, object {right[1]:.1%} of {len(labels)};", end=" ")
    print(f"decoder's error {error:.1%} of the pixels' variance")


if __name__ == "__main__":
    main()
