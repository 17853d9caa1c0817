"""What is done with a block of pairs: its images are read, encoded once, decoded all at once, written

What cannot be used is kept with its reason in `failed`, and the rest goes on.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from evaluation.core.errors import UserError, brief
from evaluation.data.images import to_tensor
from style_transfer.core import images
from style_transfer.core.pairs import Block

KEPT_BYTES = 2**29  # of features of contents; of a style they are used up before the next
FAULTS = (UserError, torch.OutOfMemoryError, torch.linalg.LinAlgError)  # of one image or pair, not of all


class Stylist(NamedTuple):
    """What the loop asks of a network. Features are tensors [B,...], or tuples, lists or dicts of them."""

    encode_content: Callable  # images [B,3,H,W] in [0,1], names of B images -> features
    encode_style: Callable  # the same
    decode: Callable  # features of B contents, of B styles, B pairs of names -> images [B,3,H,W]
    multiple: int  # of pixels, that sides must be


def keywords(function) -> dict:
    """The arguments of a function that have a default, with it."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def chosen(function, options: dict):
    """`function` with those of the options that it takes."""
    return partial(function, **{name: options[name] for name in keywords(function)})


def stylist(network, options: dict) -> Stylist:
    """A network's functions. If its `stylise` has `steps`, an output is the next step's content."""
    functions = (network.encode_content, network.encode_style, network.decode)
    encode_content, encode_style, once = (chosen(function, options) for function in functions)
    again = options["steps"] - 1 if "steps" in keywords(network.stylise) else 0

    def decode(content, style, _):
        made = once(content, style)
        for _ in range(again):
            made = once(encode_content(made), style)
        return made

    return Stylist(
        lambda images, _: encode_content(images),
        lambda images, _: encode_style(images),
        decode,
        network.multiple,
    )


class Encoded(NamedTuple):
    """Images that have one size when padded."""

    names: list
    sizes: list[tuple[int, int]]  # height and width before padding
    features: object


def each(features, change):
    """Features with every tensor changed."""
    if torch.is_tensor(features):
        return change(features)
    if isinstance(features, dict):
        return {key: each(value, change) for key, value in features.items()}
    made = [each(value, change) for value in features]
    return type(features)(*made) if hasattr(features, "_fields") else type(features)(made)


def take(features, rows: list[int]):
    """Features of the images numbered `rows`."""
    return each(features, lambda t: t if rows == list(range(len(t))) else t[rows])


class Kept:
    """What was computed for a key: the latest used, up to `limit` bytes, and always the last."""

    def __init__(self, limit: int):
        self.limit, self.values, self.bytes = limit, OrderedDict(), {}

    def get(self, key, make) -> list[Encoded]:
        if key not in self.values:
            self.values[key], tensors = make(), []
            each([group.features for group in self.values[key]], tensors.append)
            self.bytes[key] = sum(tensor.nbytes for tensor in tensors)
        self.values.move_to_end(key)
        while sum(self.bytes.values()) > self.limit and len(self.values) > 1:
            oldest, _ = self.values.popitem(last=False)
            del self.bytes[oldest]
        return self.values[key]


class Painter:
    """Makes the outputs of blocks. `failed`: name of an image or a pair -> why there is no output of it."""

    def __init__(
        self,
        stylist: Stylist,
        pairs,
        out: Path,
        device: str,
        pool: Executor,
        layout=torch.contiguous_format,
    ):
        self.stylist, self.pairs, self.out = stylist, pairs, out
        self.device, self.pool, self.layout = device, pool, layout
        self.failed: dict[str, str] = {}
        self.contents, self.styles = Kept(KEPT_BYTES), Kept(0)

    def done(self, block: Block) -> bool:
        return all((self.out / self.pairs.path(c, s)).exists() for c in block.contents for s in block.styles)

    def paint(self, block: Block, held: Callable[[], bool]) -> int:
        """Writes the block's outputs, if its claim is still `held()` then; returns how many."""
        stylist, made = self.stylist, []
        contents = self.contents.get(
            block.contents, lambda: self._encode(block.contents, stylist.encode_content)
        )
        styles = self.styles.get(block.styles, lambda: self._encode(block.styles, stylist.encode_style))
        for content in contents:
            for style in styles:
                rows = [(i, j) for i in range(len(content.names)) for j in range(len(style.names))]
                for i, j, image in self._decode(content, style, rows):
                    height, width = content.sizes[i]
                    path = self.out / self.pairs.path(content.names[i], style.names[j])
                    pixels = images.to_bytes(image[:, :height, :width], self.pairs.truncate)
                    made.append((pixels, path))
        made = made if held() else []
        for job in [self.pool.submit(images.save, *output) for output in made]:
            job.result()
        return len(made)

    def _read(self, name) -> torch.Tensor | None:
        try:
            return to_tensor(self.pairs.read(name))
        except UserError as error:
            self.failed[self.pairs.name(name)] = str(error)
            return None

    def _encode(self, names, encode) -> list[Encoded]:
        """The images that can be read and encoded, those of one padded size together."""
        sizes, batches = {}, {}
        for name, image in zip(names, self.pool.map(self._read, names)):
            if image is not None:
                sizes[name] = tuple(image.shape[1:])
                padded = images.pad(image, self.stylist.multiple)
                batches.setdefault(padded.shape, {})[name] = padded
        return [part for batch in batches.values() for part in self._encode_batch(batch, sizes, encode)]

    def _encode_batch(self, batch: dict, sizes: dict, encode) -> list[Encoded]:
        """Of images of one size together; if that fails, of each alone."""
        pixels = torch.stack(list(batch.values())).to(self.device, memory_format=self.layout)
        try:
            return [Encoded(list(batch), [sizes[name] for name in batch], encode(pixels, list(batch)))]
        except FAULTS as error:
            reason = _reason(error)
        if len(batch) > 1:  # past the handler, which keeps the failed attempt's memory
            alone = ({name: image} for name, image in batch.items())
            return [part for one in alone for part in self._encode_batch(one, sizes, encode)]
        self.failed |= {self.pairs.name(name): reason for name in batch}
        return []

    def _decode(self, content: Encoded, style: Encoded, rows):
        """Yields (i, j, image) of the pairs (i, j) that worked; those that fail together are done singly."""
        names = [(content.names[i], style.names[j]) for i, j in rows]
        features = take(content.features, [i for i, _ in rows]), take(style.features, [j for _, j in rows])
        try:
            made, reason = self.stylist.decode(*features, names).float(), None
        except FAULTS as error:
            made, reason = [], _reason(error)
        if reason and len(rows) > 1:
            for row in rows:
                yield from self._decode(content, style, [row])
        elif reason:
            self._fail(*names[0], reason)
        for row, pair, image in zip(rows, names, made):
            if image.isfinite().all():
                yield *row, image
            else:
                self._fail(*pair, "the network's output is not finite")

    def _fail(self, content, style, reason: str) -> None:
        pair = f"{self.pairs.name(content)} with {self.pairs.name(style)}"
        self.failed[pair] = reason


def _reason(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "not enough memory; give a smaller --batch or --max-side"
    return brief(error)
