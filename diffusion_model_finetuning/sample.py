"""Pictures of a model: of one prompt, of one photo and an instruction, or a whole answer set to be judged

    python -m diffusion_model_finetuning.sample --model checkpoints/mini --out cat.png \\
        --prompt "A Cats image in Rust style."
    python -m diffusion_model_finetuning.sample --model runs/ip2p --out rust.png --photo photo.jpg \\
        --prompt "Transform the image to Rust style."
    python -m diffusion_model_finetuning.sample --model checkpoints/mini --out DIR
    python -m diffusion_model_finetuning.sample --model runs/ip2p --data data/mini --out DIR

An answer set of an InstructPix2Pix model has held-out photos in place of seeds: cell (style, object, 19) is
photo 19 of the object, edited into the style. Run a command again to go on where it stopped.
"""

import argparse
import hashlib
import time
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from tqdm import tqdm

from diffusion_model_finetuning.core import ip2p
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation import canvas, protocol
from evaluation.answers.answer_set import AnswerSet
from evaluation.core.environment import made_with, no_tf32, synchronize
from evaluation.core.errors import UserError, command
from evaluation.core.files import append_json, atomic
from evaluation.data.images import CanvasImages, to_tensor
from evaluation.data.pictures import read_picture, square


def fill(sd, draw, answers: AnswerSet) -> int:
    """Draws every block of the answer set that no one else draws; returns how many images it wrote.

    `draw(prompts, cells, steps, guidance, size, precision)` -> uint8 [B,H,W,3] is `sample` of a model, or
    takes its place.
    """
    p, written = answers.protocol, 0
    no_tf32()
    todo = answers.missing()
    with tqdm(total=len(todo), desc=f"sample {answers.folder}", unit="image", disable=None) as bar:
        for claim, cells in answers.todo():
            start = time.perf_counter()
            prompts = [p.prompt(cell.theme, cell.object) for cell in cells]
            images = draw(prompts, [tuple(cell) for cell in cells], p.steps, p.guidance, p.size, p.precision)
            if not claim.held():  # this process was held up so long that another took over
                continue
            for cell, pixels in zip(cells, images, strict=True):
                with atomic(answers.path(cell)) as temporary:
                    Image.fromarray(pixels).save(temporary)
            synchronize(sd.device)
            line = {
                "images": len(cells),
                "seconds": round(time.perf_counter() - start, 3),
                "device": str(sd.device),
            }
            append_json(answers.folder / "sampling.jsonl", line)
            written += len(cells)
            bar.update(len(cells))
    return written


def open_answers(
    folder, p: protocol.Protocol, sd, model: str, run: dict | None, batch: int | None
) -> AnswerSet:
    """The answer set that `sd` fills; `model` is the base model's fingerprint, `batch` None goes by size."""
    no_tf32()
    return AnswerSet(folder, p, model, run, batch or max(1, 4 * 512 // p.size), made_with(sd.device))


def edited_answers(sd, p: protocol.Protocol, args):
    """-> the protocol, what draws a cell, and what made it, for an answer set of edited photos."""
    photos = CanvasImages(args.data, [(canvas.PHOTO, obj) for obj in p.objects], args.photos, p.size)
    number = {row[1:]: i for i, row in enumerate(photos.rows)}
    p = replace(
        p,
        name=f"{p.name}-edit",
        themes=tuple(theme for theme in p.themes if theme != canvas.PHOTO),
        seeds=tuple(args.photos),
        template=ip2p.INSTRUCTION,
        guidance=args.guidance,
        steps=args.steps,
        photos=digest_of(photos),
        photo_guidance=args.photo_guidance,
    )

    def draw(prompts, cells, steps, guidance, size, precision):
        images = torch.stack([photos[number[cell[1:]]]["image"] for cell in cells])
        return ip2p.edit(sd, images, prompts, cells, steps, guidance, args.photo_guidance, precision)

    made_by = {"method": "ip2p", "data": args.data, "photo_guidance": args.photo_guidance}
    return p, draw, made_by


def digest_of(photos: CanvasImages) -> str:
    """16 digits that stand for the pixels of all photos, at the size they are edited at."""
    sha = hashlib.sha256()
    for photo in photos:
        sha.update(photo["image"].numpy().tobytes())
    return sha.hexdigest()[:16]


def one_picture(sd, args):
    """uint8 [H,W,3] of --prompt, and of --photo if the model edits."""
    no_tf32()
    if not ip2p.edits(sd):
        return sample(sd, [args.prompt], [args.seed], args.steps, args.guidance, args.size)[0]
    if not args.photo:
        raise UserError("--photo is missing: this model edits; name an image file")
    photo = to_tensor(square(read_picture(args.photo), args.size))[None]
    return ip2p.edit(sd, photo, [args.prompt], [args.seed], args.steps, args.guidance, args.photo_guidance)[0]


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="checkpoints/mini", help="diffusers folder or CompVis file")
    parser.add_argument("--config", help="folder with the tokenizer and sizes of a CompVis file")
    parser.add_argument("--out", required=True, help="image file, or folder of the answer set")
    parser.add_argument("--prompt", help="draw one picture of this; without it, an answer set")
    parser.add_argument("--photo", help="image to edit")
    parser.add_argument("--seed", type=int, default=0, help="of one picture")
    parser.add_argument("--size", type=int, help="pixels of one picture (default: the protocol's)")
    parser.add_argument(
        "--data", help="data set whose photos an answer set edits; default: the model's, if any"
    )
    parser.add_argument("--photos", type=int, nargs="+", default=canvas.TEST, help="their numbers: 19 20")
    parser.add_argument("--steps", type=int, help="DDIM steps (default: the protocol's)")
    parser.add_argument(
        "--guidance", type=float, help="s_T of the prompt (default: the model's or protocol's)"
    )
    parser.add_argument(
        "--photo-guidance", type=float, help="s_I of the photo (default: the model's, or 1.5)"
    )
    parser.add_argument("--protocol", help="canvas, canvas-published, canvas-lite, mini, or a YAML file")
    parser.add_argument("--batch", type=int, help="images drawn at once (default: by image size)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse(argv)
    sd = load_sd(args.model, args.device, config=args.config)
    p = protocol.load(args.protocol or sd.card.get("protocol", "canvas"))
    if not args.prompt and not ip2p.edits(sd) and (args.steps or args.guidance is not None):
        raise UserError("--steps, --guidance: an answer set has its protocol's; give a --protocol FILE.yaml")
    defaults = {"steps": p.steps, "size": p.size, "guidance": p.guidance, "photo_guidance": 1.5} | sd.card
    for name in ("steps", "size", "guidance", "photo_guidance", "data"):
        if getattr(args, name) is None:
            setattr(args, name, defaults.get(name))
    if args.prompt:
        with atomic(args.out) as temporary:
            Image.fromarray(one_picture(sd, args)).save(temporary)
        return
    draw, made_by = partial(sample, sd), None
    if ip2p.edits(sd):
        if not args.data:
            raise UserError("--data is missing: name the data set whose photos are to be edited")
        p, draw, made_by = edited_answers(sd, p, args)
    answers = open_answers(args.out, p, sd, sd.fingerprint(), made_by, args.batch)
    fill(sd, draw, answers)
    answers.check_complete()


if __name__ == "__main__":
    main()
