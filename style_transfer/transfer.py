"""Style transfer: image files -> encode_content, encode_style -> decode -> image files

    python -m style_transfer.transfer sanet --weights DIR --content cat.jpg --style art/ --out painted
    python -m style_transfer.transfer sanet --weights DIR --data mini --out runs/style_transfer/sanet

    from style_transfer.transfer import load, stylise
    stylise(load("sanet", DIR), "cat.jpg", "art.jpg").save("painted.png")

Every image is encoded once and decoded with many of the other kind, in blocks of pairs; while the network
is at work, the next block's images are read and the last one's outputs written. Run a command again to go
on, or several at once to share the work. What cannot be used is listed at the end, and the rest is done.
"""

from evaluation.core.errors import UserError, closest, command, early
from style_transfer.core import cli

early(__name__, cli.parse_transfer, __doc__)

import importlib
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from evaluation.answers.claims import claimed
from evaluation.core.config import check_limits
from evaluation.core.environment import find_device
from evaluation.core.pools import threads
from style_transfer.core import costs, images, weights
from style_transfer.core.folder import Missing, Writer, agreed_batch, report, salvaged
from style_transfer.core.networks import take, with_options
from style_transfer.core.pairs import CHUNK, Benchmark, Folders


def load(method: str, folder: str | Path, device: str | None = None, **options) -> nn.Module:
    """A method's network with the weights that its authors released, which lie in the folder, on the device
    (default: a GPU if there is one). Raises UserError."""
    if method not in cli.METHODS:
        raise UserError(f"{method}: no such method; {closest(method, cli.METHODS)}")
    check_limits(options, cli.LIMITS | cli.constant(method, "LIMITS"))
    model = importlib.import_module(f"style_transfer.{method}.model")
    network = model.load(weights.find(folder, model.FILES)).to(find_device(device))
    return with_options(network, **options)


@torch.inference_mode()
def stylise(network: nn.Module, content, style) -> Image.Image:
    """The content in the style, in the content's size. Both are files, PIL images or tensors [3,H,W] in
    [0,1]."""
    device = next(network.parameters()).device
    content, style = images.to_image(content), images.to_image(style)
    content_features = network.encode_content(images.pad(content, network.multiple)[None].to(device))
    style_features = network.encode_style(images.pad(style, network.style_multiple)[None].to(device))
    made = network.decode(content_features, style_features)[0]
    return Image.fromarray(images.to_bytes(made[:, : content.shape[1], : content.shape[2]]))


class Encoded(NamedTuple):
    """Images that have one size when padded."""

    names: list
    sizes: list[tuple[int, int]]  # height and width before padding
    features: object


class Images:
    """The contents, or the styles, of many pairs: read in threads before their turn, and encoded once.

    `encode`: images [B,3,H,W] and their names -> features; `multiple`: of pixels, that sides must be;
    `count`: of images whose features are kept; `failed`: name -> why it cannot be used.
    """

    def __init__(self, pairs, pool: Executor, failed: dict, encode, multiple: int, count: int):
        self.pairs, self.pool, self.failed = pairs, pool, failed
        self.encode, self.multiple, self.count = encode, multiple, count
        self.reading, self.kept = {}, {}

    def begin(self, *groups: tuple) -> None:
        """Starts to read the images with these names."""
        names = [name for group in groups if group not in self.kept for name in group]
        self.reading = {name: self.reading.get(name) or self.pool.submit(self._read, name) for name in names}

    def _read(self, name) -> torch.Tensor | None:
        try:
            return images.to_image(self.pairs.read(name))
        except UserError as error:
            self._fail(name, str(error))
            return None

    def _fail(self, name, reason: str) -> None:
        self.failed[self.pairs.name(name)] = reason

    def encoded(self, names: tuple) -> list[Encoded]:
        """Of a group that was begun, what can be read and encoded."""
        if names not in self.kept:
            while self.kept and sum(map(len, self.kept)) + len(names) > self.count:
                del self.kept[next(iter(self.kept))]
            self.kept[names] = list(self._encoded(names))
        return self.kept[names]

    def _encoded(self, names: tuple):
        read = {name: image for name in names if (image := self.reading[name].result()) is not None}
        padded = {name: images.pad(image, self.multiple) for name, image in read.items()}

        def run(part):
            return self.encode(torch.stack([padded[name] for name in part]), part)

        for shape in {image.shape: None for image in padded.values()}:
            batch = [name for name in padded if padded[name].shape == shape]
            for part, features in salvaged(batch, run, self._fail):
                yield Encoded(part, [tuple(read[name].shape[1:]) for name in part], features)


def decoded(content: Encoded, style: Encoded, pairs, failed: dict, decode):
    """Yields (pixels, path) of every content in every style. `decode`: features of B contents, of B styles,
    names of B pairs -> images [B,3,H,W]."""

    def run(rows):
        features = take(content.features, [i for i, _ in rows]), take(style.features, [j for _, j in rows])
        return decode(*features, [(content.names[i], style.names[j]) for i, j in rows])

    def fail(row, reason):
        names = content.names[row[0]], style.names[row[1]]
        failed[" with ".join(map(pairs.name, names))] = reason

    rows = [(i, j) for i in range(len(content.names)) for j in range(len(style.names))]
    for part, made in salvaged(rows, run, fail):
        finite = made.isfinite().flatten(1).all(1).tolist()
        for (i, j), pixels, is_finite in zip(part, images.to_bytes(made, pairs.truncate), finite):
            height, width = content.sizes[i]
            if is_finite:
                yield pixels[:height, :width], pairs.path(content.names[i], style.names[j])
            else:
                fail((i, j), "the network's output is not finite")


def transfer(args, network: nn.Module, files: dict[str, Path]) -> None:
    """Makes the outputs that --out lacks, and leaves a line of their costs. Raises UserError at the end if
    some could not be made. `files`: of the network's weights."""
    out, device = Path(args.out), find_device(args.device)
    if args.data:
        pairs = Benchmark(args.protocol, args.data, args.method, args.styles, args.objects)
    else:
        pairs = Folders(args.content, args.style, args.max_side)
    missing = Missing(out, pairs, agreed_batch(args, pairs, files, device), args.limit)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    network, meter, failed = network.to(device, memory_format=layout), costs.Meter(device), {}

    @torch.inference_mode()
    def run(function, *inputs):
        """Of names, the last of the inputs, most networks know nothing."""
        with meter.network():
            return function(*inputs) if getattr(network, "named", False) else function(*inputs[:-1])

    def encoder(function):
        return lambda pixels, names: run(function, pixels.to(device, memory_format=layout), names)

    if hasattr(network, "lowered"):  # which knows better than autocast what may be of less precision
        network.lowered(getattr(torch, args.dtype))
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=args.dtype == "bfloat16")
    count = sum(block.size for block in missing.left())
    bar = tqdm(total=count, desc=f"{args.method} {out}", unit="image", disable=None)
    claims = closing(claimed(out, missing.blocks, missing.done))  # lets go of the last if stopped
    try:
        # Pillow reads and writes outside Python's lock
        with threads(8) as pool, closing(Writer(pool, out)) as writer, autocast, bar, claims as mine:
            contents = Images(pairs, pool, failed, encoder(network.encode_content), network.multiple, CHUNK)
            styles = Images(pairs, pool, failed, encoder(network.encode_style), network.style_multiple, 1)
            for claim, block in mine:
                following = missing.after(block) or block
                contents.begin(block.contents, following.contents)
                styles.begin(block.styles, following.styles)
                outputs = [
                    output
                    for content in contents.encoded(block.contents)
                    for style in styles.encoded(block.styles)
                    for output in decoded(content, style, pairs, failed, partial(run, network.decode))
                ]
                count = writer.write(outputs, claim)
                meter.outputs += count
                bar.update(count)
            writer.finish()
    finally:
        meter.write(out, sum(map(costs.size, files.values())))
    if failed:
        raise UserError(f"{out}: {report(failed)}")
    if left := missing.left():
        others = f"{len(left)} batches are with other processes"
        raise UserError(f"{out}: {others}; run this command again when they end")


@command
def main(argv=None):
    args = cli.parse_transfer(__doc__, argv)
    network = load(args.method, args.weights, args.device, **args.options)
    transfer(args, network, weights.find(args.weights, cli.constant(args.method, "FILES")))


if __name__ == "__main__":
    main()
