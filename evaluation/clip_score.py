"""CLIP similarities of edited photos: is it what was asked for, is the photo kept, did it change as the words

With unit features I of a photo (0) and its edited version (1), and T of their captions:

    text       I1 . T1                       the edited picture and its caption
    photo      I0 . I1                       the edited picture and the photo
    direction  cos(I1 - I0, T1 - T0)         the change of the picture and the change of the caption

Directional similarity is of Gal et al. (StyleGAN-NADA, SIGGRAPH 2022, eq. 2), and the measure of edits in
InstructPix2Pix (Brooks et al., CVPR 2023), which prepares images so: bicubic to CLIP's square, not
antialiased. Captions are the benchmark's prompts, with "Photo" for the photo's style. Without photos to
compare with (answers of a text-to-image model), `text` is all there is.

    python -m evaluation.clip_score runs/ip2p/answers --clip checkpoints/clip-vit-large-patch14

The folder holds `{theme}_{object}_seed{n}.png`, n the number of the photo that was edited.
"""

import argparse
import itertools
from pathlib import Path

from evaluation import canvas
from evaluation.answers.answer_set import Cell
from evaluation.answers.claims import MANIFEST
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early, refused
from evaluation.core.files import file_digest, read_json, write_json
from evaluation.data.folder import IMAGE, names_in
from evaluation.generators import CLIP

BATCH = 32


def answers_in(folder: Path) -> dict[Cell, Path]:
    names, cells = [name for name in names_in(folder) if "_seed" in name and IMAGE.fullmatch(name)], {}
    if not names:
        raise UserError(f"{folder}: no images; expected {{theme}}_{{object}}_seed{{number}}.png")
    for path in map(folder.joinpath, names):
        other = cells.setdefault(Cell(*canvas.parse_answer_name(path.name)), path)
        if other is not path:
            raise UserError(f"{path}: of the same theme, object and number as {other.name}; remove one")
    return cells


def edited_data(folder: Path) -> str | None:
    """The data set whose photos an answer set edits, if its manifest names one."""
    path = folder / MANIFEST
    run = path.exists() and read_json(path, run=dict | None)["run"]
    return run.get("data") if run and run.get("method") == "ip2p" else None


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.clip_score", description="CLIP similarities.")
    parser.add_argument("answers", type=Path, help="folder of {theme}_{object}_seed{n}.png")
    parser.add_argument("--clip", required=True, metavar="DIR", help="CLIP model, in transformers' form")
    parser.add_argument("--data", help="data set whose photos were edited (default: as the manifest says)")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    answers_in(args.answers)
    args.data = args.data or edited_data(args.answers)
    if args.data:
        flags.data_set(args.data)
    if not Path(args.clip, "config.json").exists():
        raise UserError(f"--clip {args.clip}: no CLIP model (config.json, model.safetensors and tokenizer)")
    return args


early(__name__, parse)

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from evaluation.core.environment import find_device, made_with
from evaluation.core.pools import threads
from evaluation.core.tensors import check_finite
from evaluation.data.images import CanvasImages, to_tensor
from evaluation.data.pictures import read_picture


class Clip:
    """A CLIP model in a local folder of transformers' form; raises UserError if there is none."""

    def __init__(self, folder: str | Path, device: str):
        how = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        with refused(f"--clip {folder}: no CLIP model, or not a complete CLIP model", Exception):
            self.model, info = CLIPModel.from_pretrained(folder, **how)
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if missing := sorted(info["missing_keys"]):
            raise UserError(f"--clip {folder}: not the weights of a CLIP model, which have {missing[0]}")
        check_finite(self.model.state_dict(), folder)
        self.model.eval().requires_grad_(False).to(device)
        self.digest = file_digest(Path(folder) / "model.safetensors")
        self.size = self.model.config.vision_config.image_size
        self.length = self.model.config.text_config.max_position_embeddings

    def resized(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> [B,3,size,size]"""
        return F.interpolate(pixels, (self.size, self.size), mode="bicubic", align_corners=False)

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] in [0,1] -> unit features [B,D]."""
        pixels = self.resized(pixels)
        mean, std = (pixels.new_tensor(rgb).view(3, 1, 1) for rgb in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        pixels = ((pixels - mean) / std).to(self.model.device)
        return F.normalize(self.model.get_image_features(pixels).pooler_output).cpu()

    def texts(self, captions: list[str]) -> torch.Tensor:
        """-> unit features [B,D]."""
        fit = {"padding": "max_length", "truncation": True, "max_length": self.length}
        tokens = self.tokenizer(captions, return_tensors="pt", **fit).to(self.model.device)
        return F.normalize(self.model.get_text_features(**tokens).pooler_output).cpu()


def similarities(edited, caption, photo=None, photo_caption=None) -> dict[str, torch.Tensor]:
    """The cosines above [B], of unit features [B,D]; `text` alone without a photo."""
    result = {"text": (edited * caption).sum(1)}
    if photo is not None:
        result["photo"] = (edited * photo).sum(1)
        result["direction"] = F.cosine_similarity(edited - photo, caption - photo_caption)
    return result


def photos_of(cells, data: str, size: int):
    """-> function(cell) -> the photo of the cell's object and number, `size` pixels wide and high."""
    if odd := [cell.seed for cell in cells if cell.seed not in canvas.NUMBERS]:
        raise UserError(f"--data {data}: seed{odd[0]} in a file name is no photo's number, none was edited")
    photos = sorted({(canvas.PHOTO, cell.object) for cell in cells})
    images = CanvasImages(data, photos, sorted({cell.seed for cell in cells}), size)
    return lambda cell: images.picture((canvas.PHOTO, cell.object, cell.seed))


def in_batches(function, items: list, name: str, load=None) -> torch.Tensor:
    """function(up to BATCH items, or the stack of what `load` reads of them) -> [B,D], of all items [N,D]."""
    starts = tqdm(range(0, len(items), BATCH), desc=name, disable=None)
    chunks = (items[start : start + BATCH] for start in starts)
    with threads() as pool:
        batches = (torch.stack([*pool.map(load, chunk)]) if load else chunk for chunk in chunks)
        return torch.cat([function(batch) for batch in batches])


@torch.inference_mode()
def scores(folder: Path, clip: Clip, data: str | None) -> dict:
    """Means over all images, and over those of every theme; `data`: where the edited photos are."""
    paths = answers_in(folder)
    cells = list(paths)
    sized = lambda picture: clip.resized(to_tensor(picture)[None])[0]  # noqa: E731  they may differ in size
    sources = {"edited": lambda cell: sized(read_picture(paths[cell]))}
    prompts = [[canvas.prompt(cell.theme, cell.object) for cell in cells]]
    if data:
        photo = photos_of(cells, data, read_picture(paths[cells[0]]).width)
        sources["photos"] = lambda cell: sized(photo(cell))
        prompts.append([canvas.prompt(canvas.PHOTO, cell.object) for cell in cells])
    distinct = sorted({*itertools.chain(*prompts)})
    feature = dict(zip(distinct, in_batches(clip.texts, distinct, "captions")))
    captions = [torch.stack([feature[prompt] for prompt in column]) for column in prompts]
    features = [in_batches(clip.images, cells, name, load) for name, load in sources.items()]
    figures = similarities(features[0], captions[0], *features[1:], *captions[1:]).items()
    themes = sorted({cell.theme for cell in cells})
    masks = {theme: torch.tensor([cell.theme == theme for cell in cells]) for theme in themes}
    mean = {name: float(cosines.mean()) for name, cosines in figures}
    means = {name: {theme: float(x[mask].mean()) for theme, mask in masks.items()} for name, x in figures}
    return {"clip": clip.digest, "images": len(cells), "data": data, "mean": mean, "themes": means}


@command
def main(argv=None):
    args = parse(argv)
    device = find_device(args.device)
    result = scores(args.answers, Clip(args.clip, device), args.data)
    write_json(args.answers / CLIP, result | {"made_with": made_with(device)})
    figures = result["themes"]
    print(f"{'':24}" + "".join(f"{figure:>11}" for figure in figures))
    for theme in figures["text"]:
        print(f"{theme:24}" + "".join(f"{means[theme]:11.4f}" for means in figures.values()))
    print(f"{'all':24}" + "".join(f"{value:11.4f}" for value in result["mean"].values()))


if __name__ == "__main__":
    main()
