"""What judges see in a method's outputs: by default in the output itself, or as the benchmark's scripts did

`Direct` compares an output with the ground truth, the photo it was made of and the style image it was made
after. `Published` first paints the output anew with StyTr2, in the style of the ground truth, and shows the
classifier images that are not normalised; what the ground truth itself would get is its floor.
"""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import nn

from evaluation.core.errors import UserError
from evaluation.data.pictures import read_picture, square
from evaluation.judges.classifier import Classifier, preprocess
from style_transfer.core import losses
from style_transfer.core.networks import take
from style_transfer.core.pairs import Benchmark, Block
from style_transfer.core.perceptual import Perceptual
from style_transfer.core.vgg import Encoder

Images = dict[int, torch.Tensor]  # side in pixels -> [B,3,side,side] in [0,1]


@dataclass(frozen=True)
class Direct:
    """Style as VGG and the style classifier see it, content as VGG, LPIPS and the object classifier do.

    The classifiers' losses compare tokens place by place, so that of style against a reference, which shows
    other shapes, is never near 0. A part may be None.
    """

    size: int  # of VGG's images
    encoder: Encoder | None
    style: Classifier | None
    object: Classifier | None
    perceptual: Perceptual | None = None

    asks: ClassVar = {  # role of an image -> the classifiers that it is shown to
        "output": ("style", "object"),
        "truth": ("style", "object"),
        "photo": ("object",),
        "reference": ("style",),
    }

    def look(self, images: Images, role: str) -> dict:
        """Features of B images, the rows of tensors."""
        looks = {"vgg": losses.seen(self.encoder(images[self.size]))} if self.encoder else {}
        if self.perceptual and role in ("output", "photo"):
            looks["perceptual"] = self.perceptual.look(images[self.size])
        for task in self.asks[role]:
            if judge := getattr(self, task):
                logits, looks[task] = losses.tokens(judge.vit, (images[judge.size] - judge.mean) / judge.std)
                looks[f"{task}_seen"] = logits.argmax(1)
        return looks

    def compare(self, output: dict, truth: dict, photo: dict, reference: dict) -> dict[str, list]:
        """Of B pairs: losses, and the names of the style and object seen."""
        columns = {}
        if self.encoder:
            columns["vgg_style_truth"] = losses.style_loss(output["vgg"], truth["vgg"])
            columns["vgg_style_reference"] = losses.style_loss(output["vgg"], reference["vgg"])
            columns["vgg_content_photo"] = losses.content_loss(output["vgg"], photo["vgg"])
            columns["vgg_content_truth"] = losses.content_loss(output["vgg"], truth["vgg"])
        if self.style:
            columns["vit_style_truth"] = losses.feature_loss(output["style"], truth["style"])
            columns["vit_style_reference"] = losses.feature_loss(output["style"], reference["style"])
        if self.object:
            columns["vit_content_photo"] = losses.feature_loss(output["object"], photo["object"])
            columns["vit_content_truth"] = losses.feature_loss(output["object"], truth["object"])
        if self.perceptual:
            distance = self.perceptual.distance(output["perceptual"], photo["perceptual"])
            columns[self.perceptual.name] = distance
        columns = {name: column.tolist() for name, column in columns.items()}
        for task in ("style", "object"):
            if judge := getattr(self, task):
                columns[f"{task}_seen"] = [judge.labels[i] for i in output[f"{task}_seen"].tolist()]
        return columns


def restyled(encoder: Encoder, stytr2: nn.Module, output: tuple, truth: tuple):
    """Content and style loss [B] of outputs painted anew; `output`, `truth`: images and what VGG saw in them.

    O = StyTr2(content R, style G);  content compares O with R, style compares O with G.
    """
    made = losses.seen(encoder(stytr2.stylise(output[0], truth[0])))
    return losses.content_loss(made, output[1]), losses.style_loss(made, truth[1])


@dataclass(frozen=True)
class Published:
    """The two released scripts. `encoder` and `stytr2` go together; they or `style` may be None.

    The images are the protocol's squares, which for square pictures are the scripts' centre crops.
    """

    size: int
    encoder: Encoder | None
    stytr2: nn.Module | None
    style: Classifier | None

    asks: ClassVar = {"output": (), "truth": ()}

    def look(self, images: Images, role: str) -> dict:
        looks = {}
        if self.encoder:
            looks["vgg"] = images[self.size], losses.seen(self.encoder(images[self.size]))
            if role == "truth":
                looks["floor"] = restyled(self.encoder, self.stytr2, looks["vgg"], looks["vgg"])
        if self.style:
            _, looks["style"] = losses.tokens(self.style.vit, images[self.style.size])
        return looks

    def compare(self, output: dict, truth: dict) -> dict[str, list]:
        columns = {}
        if self.encoder:
            made = restyled(self.encoder, self.stytr2, output["vgg"], truth["vgg"])
            columns["vgg_content"], columns["vgg_style"] = made
            columns["vgg_content_floor"], columns["vgg_style_floor"] = truth["floor"]
        if self.style:
            columns["vit_style"] = losses.feature_loss(output["style"], truth["style"])
        return {name: column.tolist() for name, column in columns.items()}


class Court:
    """Shows a judge the outputs of blocks; one block's images are read while the judge is at another's.

    `outputs`: (content, reference) -> file, of the pairs that are judged.
    """

    def __init__(self, judge, pairs: Benchmark, outputs: dict, device: str, pool: Executor):
        self.judge, self.pairs, self.outputs, self.device, self.pool = judge, pairs, outputs, device, pool
        classifiers = [part for part in vars(judge).values() if isinstance(part, Classifier)]
        self.sizes = {judge.size, *(classifier.size for classifier in classifiers)}
        self.look = lru_cache(8)(self._look)  # photos serve all styles, ground truths all references

    def begin(self, block: Block) -> dict:
        """Starts to read what only this block needs; -> {name: future}."""
        found = self._found(block)
        references = block.styles if found and "reference" in self.judge.asks else ()
        return {name: self.pool.submit(self._read, name) for name in (*found.values(), *references)}

    @torch.inference_mode()
    def rows(self, block: Block, reading: dict) -> list[dict]:
        """-> a dict an output: style, object, content, reference, and the judge's columns.

        `reading`: what `begin` returned for the block. Raises UserError for a loss that is not finite.
        """
        found, self.reading = self._found(block), reading
        if not found:
            return []
        pairs = list(found)
        truths = [content._replace(theme=block.styles[0].theme) for content in block.contents]
        shown = {"truth": truths, "photo": block.contents, "reference": block.styles}
        shown = {
            role: self.look(tuple(rows), role) for role, rows in shown.items() if role in self.judge.asks
        }
        places = {"reference": [block.styles.index(reference) for _, reference in pairs]}
        places["truth"] = places["photo"] = [block.contents.index(content) for content, _ in pairs]
        chosen = {role: take(looks, places[role]) for role, looks in shown.items()}
        columns = self.judge.compare(output=self._look(tuple(found.values()), "output"), **chosen)
        for name, column in columns.items():
            for path, value in zip(found.values(), column):
                if isinstance(value, float) and not math.isfinite(value):
                    raise UserError(f"{path}: its {name} is {value}; name another file of the judge's")
        return [
            {"style": reference.theme, "object": content.object, "content": content.index}
            | {"reference": reference.index}
            | {name: column[i] for name, column in columns.items()}
            for i, (content, reference) in enumerate(pairs)
        ]

    def _found(self, block: Block) -> dict:
        pairs = ((content, reference) for content in block.contents for reference in block.styles)
        return {pair: self.outputs[pair] for pair in pairs if pair in self.outputs}

    def _read(self, name) -> Images:
        """An output (a path) or an image of the data set (a row); its square, in all sizes, uint8."""
        image = self.picture(name)
        return {size: preprocess(image, size) for size in self.sizes}

    def picture(self, name) -> Image.Image:
        """An output's central square, or an image of the data set, at the protocol's size."""
        if isinstance(name, Path):
            return square(read_picture(name), self.pairs.protocol.size)
        return self.pairs.read(name)

    def _look(self, names: tuple, role: str) -> dict:
        waiting = [self.reading.get(name) or self.pool.submit(self._read, name) for name in names]
        read = [future.result() for future in waiting]
        stacked = {size: torch.stack([one[size] for one in read]).to(self.device) for size in self.sizes}
        return self.judge.look({size: pixels.float().div(255) for size, pixels in stacked.items()}, role)
