"""The one sampler: base model, or base model + one run -> answer set.

    python -m machine_unlearning.sample --model checkpoints/mini --run runs/esd/Sketch --out DIR

Every image starts from noise that is a function of (seed, theme, object). Images are drawn in fixed blocks of
the grid; run the command again to go on, or several at once to share the work: the pixels stay the same.
"""

import argparse
import importlib
import json
import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from diffusion_model_finetuning.core.sd import load_sd, sample
from evaluation import protocol
from evaluation.answers import AnswerSet
from evaluation.cost import synchronize
from evaluation.errors import UserError, command
from evaluation.files import atomic
from evaluation.records import read_record
from machine_unlearning.core import cli, weights


def sampler(sd, run: str | None, method: str = ""):
    """What draws the images of a run (of the base model without one): `sample(sd, ...)` without its sd.

    A method that acts while sampling has an `intervene.py`, whose `sampler(sd, run)` returns such a function.
    """
    if not run:
        return partial(sample, sd)
    weights.load_run(sd, run)
    if weights.intervenes(method):
        return importlib.import_module(f"machine_unlearning.{method}.intervene").sampler(sd, run)
    return partial(sample, sd)


def fill(sd, draw, answers: AnswerSet) -> int:
    """Draws every block of the answer set that no one else draws; returns how many images it wrote."""
    p, written = answers.protocol, 0
    todo = answers.missing()
    with tqdm(total=len(todo), desc=f"sample {answers.folder}", unit="image", disable=None) as bar:
        for _, cells in answers.todo():
            start = time.perf_counter()
            prompts = [p.prompt(cell.theme, cell.object) for cell in cells]
            images = draw(prompts, [tuple(cell) for cell in cells], p.steps, p.guidance, p.size, p.precision)
            for cell, pixels in zip(cells, images, strict=True):
                with atomic(answers.path(cell)) as temporary:
                    Image.fromarray(pixels).save(temporary)
            synchronize(sd.device)
            line = {
                "images": len(cells),
                "seconds": round(time.perf_counter() - start, 3),
                "device": str(sd.device),
            }
            with open(answers.folder / "sampling.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            written += len(cells)
            bar.update(len(cells))
    return written


@command
def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="checkpoints/mini", help="diffusers folder of the base model")
    parser.add_argument("--run", help="run folder of an unlearning method; without it the base model answers")
    parser.add_argument("--protocol", help="canvas, canvas-published, canvas-lite, mini, or a YAML file")
    parser.add_argument("--out", help="folder of the answer set (default: RUN/answers)")
    parser.add_argument("--batch", type=int, help="images drawn at once (default: by image size)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if not (args.out or args.run):
        raise UserError(
            "--out is missing: name the folder of the base model's answer set, such as runs/base/answers"
        )
    p = protocol.load(args.protocol or cli.read_card(args.model).get("protocol", "canvas"))
    record = read_record(args.run) if args.run else None
    sd = load_sd(args.model, args.device)
    fingerprint = sd.fingerprint()
    draw = sampler(sd, args.run, record["method"] if record else "")
    out = Path(args.out or Path(args.run) / "answers")
    answers = AnswerSet(out, p, fingerprint, record, args.batch or max(1, 4 * 512 // p.size))
    fill(sd, draw, answers)
    if left := len(answers.missing()):
        print(f"{out}: {left} images are with other processes; run this command again if they were stopped")


if __name__ == "__main__":
    main()
