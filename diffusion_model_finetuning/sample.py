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
from pathlib import Path

from diffusion_model_finetuning.core import card as cards
from evaluation import canvas, protocol
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def parse(argv=None) -> argparse.Namespace:
    """The flags; `protocol` is read, and what is not given is the model's own or the protocol's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_model(parser)
    parser.add_argument(
        "--out", type=flags.new_path, required=True, help="image file, or folder of the answer set"
    )
    parser.add_argument("--prompt", help="draw one picture of this; without it, an answer set")
    parser.add_argument("--photo", help="image to edit")
    flags.add_seed(parser)
    parser.add_argument(
        "--size", type=flags.whole(8, 4096), help="pixels of one picture (default: the protocol's)"
    )
    parser.add_argument(
        "--data", help="data set whose photos an answer set edits; default: the model's, if any"
    )
    parser.add_argument(
        "--photos", type=flags.whole(), nargs="+", default=canvas.TEST, help="their numbers: 19 20"
    )
    parser.add_argument("--steps", type=flags.whole(1, 1000), help="DDIM steps (default: the protocol's)")
    strength = flags.decimal(0, 1000)
    parser.add_argument(
        "--guidance", type=strength, help="s_T of the prompt (default: the model's or protocol's)"
    )
    parser.add_argument(
        "--photo-guidance", type=strength, help="s_I of the photo (default: the model's, or 1.5)"
    )
    parser.add_argument("--protocol", help="canvas, canvas-published, canvas-lite, mini, or a YAML file")
    parser.add_argument("--batch", type=flags.whole(), help="images drawn at once (default: by image size)")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    card = cards.read_card(args.model, args.config)
    check_out(args)
    if len(set(args.photos)) < len(args.photos):
        raise UserError(f"--photos {' '.join(map(str, args.photos))}: name every number once")
    args.given = {name for name in ("steps", "guidance") if getattr(args, name) is not None}
    args.protocol = p = protocol.load(args.protocol or card.get("protocol", "canvas"))
    defaults = {"steps": p.steps, "size": p.size, "guidance": p.guidance, "photo_guidance": 1.5} | card
    for name in ("steps", "size", "guidance", "photo_guidance", "data"):
        if getattr(args, name) is None:
            setattr(args, name, defaults.get(name))
    if args.data:
        flags.data_set(args.data)
    if args.prompt is not None:
        check_picture(args)
    return args


def check_out(args: argparse.Namespace) -> None:
    """UserError for what is neither one picture nor an answer set."""
    out = Path(args.out)
    if args.prompt is None:
        for flag in ("photo", "size"):
            if getattr(args, flag) is not None:
                raise UserError(f"--{flag}: is of one picture; say which with --prompt")
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file; name a folder for the answer set, or give a --prompt")
    elif out.suffix.lower() not in PICTURES or out.is_dir():
        named = f"name an image file such as {out.stem or 'picture'}.png (or {', '.join(PICTURES[1:])})"
        raise UserError(f"--out {out}: {'is a folder; ' * out.is_dir()}{named}")
    if args.photo is not None and not Path(args.photo).is_file():
        raise UserError(f"--photo {args.photo}: no such file")


def check_picture(args: argparse.Namespace) -> None:
    """UserError for what the model does not draw, as far as its folder tells."""
    if args.size % (factor := cards.downscale(args.model, args.config)):
        raise UserError(f"--size {args.size}: expected a multiple of {factor} for {args.model}")
    if Path(args.model).is_dir():
        check_photo(args, cards.edits(args.model))


def check_photo(args: argparse.Namespace, edits: bool) -> None:
    """UserError for a --photo that a model, which `edits` or not, cannot use, or that it needs."""
    if args.photo and not edits:
        raise UserError(f"--photo {args.photo}: {args.model} draws from text alone; leave the flag out")
    if edits and not args.photo:
        raise UserError("--photo is missing: this model edits; name an image file")


early(__name__, parse)

import hashlib
from dataclasses import replace

import torch
from PIL import Image

from diffusion_model_finetuning.core import ip2p
from diffusion_model_finetuning.core.drawing import Drawing, drawing, fill, open_answers
from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation.core.environment import find_device
from evaluation.core.files import atomic
from evaluation.data.images import CanvasImages, to_tensor
from evaluation.data.pictures import read_picture, square


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

    def draw(cells):
        images = torch.stack([photos[number[cell[1:]]]["image"] for cell in cells])
        prompts, seeds = (
            [p.prompt(cell.theme, cell.object) for cell in cells],
            [tuple(cell) for cell in cells],
        )
        return ip2p.edit(sd, images, prompts, seeds, p.steps, p.guidance, args.photo_guidance, p.precision)

    made_by = {"method": "ip2p", "data": args.data, "photo_guidance": args.photo_guidance}
    return p, Drawing(draw, sd.device), made_by


def digest_of(photos: CanvasImages) -> str:
    """16 digits that stand for the pixels of all photos, at the size they are edited at."""
    sha = hashlib.sha256()
    for photo in photos:
        sha.update(photo["image"].numpy().tobytes())
    return sha.hexdigest()[:16]


def one_picture(sd, args, photo: Image.Image | None):
    """uint8 [H,W,3] of --prompt, and of the photo if the model edits."""
    check_photo(args, ip2p.edits(sd))
    if not photo:
        return sample(sd, [args.prompt], [args.seed], args.steps, args.guidance, args.size)[0]
    photo = to_tensor(square(photo, args.size))[None]
    return ip2p.edit(sd, photo, [args.prompt], [args.seed], args.steps, args.guidance, args.photo_guidance)[0]


@command
def main(argv=None):
    args = parse(argv)
    photo = read_picture(args.photo) if args.photo else None
    sd, p = load_sd(args.model, find_device(args.device), config=args.config), args.protocol
    if args.prompt is not None:
        with atomic(args.out) as temporary:
            Image.fromarray(one_picture(sd, args, photo)).save(temporary)
        return
    how, made_by = None, None
    if ip2p.edits(sd):
        if not args.data:
            raise UserError("--data is missing: name the data set whose photos are to be edited")
        p, how, made_by = edited_answers(sd, p, args)
    elif args.given:
        raise UserError("--steps, --guidance: an answer set has its protocol's; give a --protocol FILE.yaml")
    answers = open_answers(args.out, p, sd, sd.fingerprint(), made_by, args.batch)
    sd.hasten(p.precision)
    fill(how or drawing(sd, answers), answers)
    answers.check_complete()


if __name__ == "__main__":
    main()
