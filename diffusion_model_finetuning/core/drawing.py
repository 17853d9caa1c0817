"""Answer sets filled by a model, block by block: by whom they were drawn, and when, changes no byte"""

import io
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from diffusion_model_finetuning.core.intervention import NOTHING
from diffusion_model_finetuning.core.sd import sample
from evaluation.answers.answer_set import AnswerSet
from evaluation.core.environment import made_with
from evaluation.core.files import append_json, atomic
from evaluation.core.pools import threads
from evaluation.protocol import Protocol


def open_answers(folder, p: Protocol, sd, model: str, run: dict | None, batch: int | None) -> AnswerSet:
    """The answer set that `sd` fills; `model` is the base model's fingerprint, `batch` None goes by size."""
    batch = batch or max(1, min(32, 16 * 512**2 // p.size**2))
    return AnswerSet(folder, p, model, run, batch, made_with(sd.device))


class Drawing(NamedTuple):
    """How an answer set's images are made. Functions of cells, images uint8 [B,H,W,3] in their order."""

    draw: Callable  # cells -> images
    device: torch.device
    plain: Callable | None = None  # cells -> images of the model itself, where a method acts while sampling
    touches: Callable | None = None  # cells -> bool [B]: which of them the method changes; None: all
    base: AnswerSet | None = None  # the model's own answers: what is untouched is taken from there


def drawing(sd, answers: AnswerSet, intervention=NOTHING, base=None, even=False) -> Drawing:
    """That of a text-to-image model. `even`: blocks that are smaller are filled up, for a compiled UNet."""
    p, size = answers.protocol, answers.block if even else 0

    def draw(cells, act=intervention):
        rows = [tuple(cell) for cell in cells]
        rows += rows[-1:] * (size - len(rows))
        prompts = [p.prompt(theme, obj) for theme, obj, _ in rows]
        return sample(sd, prompts, rows, p.steps, p.guidance, p.size, p.precision, act)[: len(cells)]

    if not intervention.touches:
        return Drawing(draw, sd.device)

    def touches(cells):
        return intervention.touches(sd.tokens([p.prompt(cell.theme, cell.object) for cell in cells]))

    return Drawing(draw, sd.device, partial(draw, act=NOTHING), touches, base)


def draw_block(how: Drawing, answers: AnswerSet, claim, cells) -> dict:
    """Draws the missing images of a block while its `claim` is held -> content of the files written, by cell.

    An image that the method leaves untouched is linked from the base model's answers, or is drawn as it was
    there: with its whole block. So each has the same bytes whoever made it, and whenever.
    """
    touched = how.touches(cells).tolist() if how.touches else [True] * len(cells)
    changed, same = ([c for c, t in zip(cells, touched) if t == wanted] for wanted in (True, False))
    missing = lambda part: [cell for cell in part if not answers.path(cell).exists()]  # noqa: E731
    if how.base and how.base.block == answers.block:
        for cell in missing(same):
            if how.base.path(cell).exists():
                link(how.base.path(cell), answers.path(cell))
    contents = {}
    for draw, block, wanted in ((how.plain, cells, same), (how.draw, changed, changed)):
        if not missing(wanted):
            continue
        start = time.perf_counter()
        images = dict(zip(block, draw(block), strict=True))
        if not claim.held():  # this process was held up so long that another took over
            break
        with threads() as pool:
            write = lambda cell, images=images: store(images[cell], answers.path(cell))  # noqa: E731
            contents |= zip(wanted, pool.map(write, wanted))
        line = {"images": len(wanted), "seconds": round(time.perf_counter() - start, 3)}
        append_json(answers.folder / "sampling.jsonl", line | {"device": str(how.device)})
    return contents


def store(pixels, path: Path) -> bytes:
    """Writes an image uint8 [H,W,3]; returns the file's content. Large PNGs are packed less, so faster."""
    content, png = io.BytesIO(), path.suffix == ".png"
    packed = {"compress_level": 1} if png and len(pixels) >= 256 else {}
    Image.fromarray(pixels).save(content, "png" if png else "jpeg", **packed)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return content.getvalue()


def link(source: Path, path: Path) -> None:
    """The same file under a second name, or a copy where the disk has no such links."""
    with atomic(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def fill(how: Drawing, answers: AnswerSet) -> int:
    """Draws every block of the answer set that no one else draws; returns how many images it wrote."""
    written = 0
    with tqdm(
        total=len(answers.missing()), desc=f"sample {answers.folder}", unit="image", disable=None
    ) as bar:
        for claim, _, cells in answers.todo():
            count = len(draw_block(how, answers, claim, cells))
            written += count
            bar.update(count)
    return written
