"""From finished runs to their figures in one process: the base model and every run is drawn, judged, scored

    python -m machine_unlearning.evaluate --model checkpoints/mini --runs runs/esd/Sketch runs/uce/Cats

The base model, its judges and the network of FID are loaded once; a run's weights are put in and taken out
again. Every block of images goes to the judges as it is drawn, and what they make of it is kept, so the same
command, repeated, goes on; several, on one GPU each, share the work. What is done is skipped, and whatever
would end this after hours of sampling is refused before it begins. The files are those that
`machine_unlearning.sample`, `evaluation.predict`, `evaluation.fid` and `evaluation.accuracy` leave.
"""

import argparse
from pathlib import Path

from diffusion_model_finetuning.core.card import read_card
from evaluation import protocol
from evaluation.answers.answer_set import forgotten, protocol_of
from evaluation.answers.claims import MANIFEST
from evaluation.core import flags
from evaluation.core.errors import UserError, command, early
from evaluation.core.record import RECORD, read_record
from evaluation.metrics.figures import check_targets
from evaluation.mini.dataset import check_drawn
from machine_unlearning.core.cli import KEEP
from machine_unlearning.core.runs import check_model


def parse(argv=None) -> argparse.Namespace:
    """The flags, or what the model's card says; `world`, the protocol; the runs' `records`."""
    parser = argparse.ArgumentParser(
        prog="python -m machine_unlearning.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_model(parser)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="the base model's answer set (RUN/../../base/answers)"
    )
    parser.add_argument(
        "--data",
        type=flags.data_set,
        help="real images: folder {theme}/{object}/{n}.jpg, or mini (the model's)",
    )
    parser.add_argument("--protocol", help="canvas, canvas-lite, mini, ..., or a YAML file (the model's)")
    parser.add_argument(
        "--keep", choices=KEEP, default="all", help="which of the runs' images stay once judged (all)"
    )
    parser.add_argument("--batch", type=flags.whole(1), help="images drawn at once (default: by image size)")
    parser.add_argument("--compile", action="store_true", help="the UNet, once for all runs")
    flags.add_device(parser)
    args = parser.parse_args(argv)
    card = read_card(args.model, args.config)
    args.protocol, args.data = args.protocol or card.get("protocol", "canvas"), args.data or card.get("data")
    args.world = protocol.load(args.protocol)
    if not args.data:
        raise UserError("--data is missing: name the folder of the data set, {theme}/{object}/{n}.jpg")
    check_drawn(args.data, args.world)
    if not (args.base or args.runs):
        raise UserError("--runs is missing: name folders of runs, or the base model's answer set with --base")
    args.base = args.base or args.runs[0].parents[1] / "base" / "answers"
    args.runs = list(dict.fromkeys(args.runs))
    args.records = [read_record(run) for run in args.runs]
    for run, record in zip(args.runs, args.records):
        check_targets(forgotten(record, run / RECORD), args.world)
    for answers in [args.base, *(run / "answers" for run in args.runs)]:
        if (answers / MANIFEST).exists() and protocol_of(answers).hash != args.world.hash:
            raise UserError(
                f"{answers}: was sampled with protocol {protocol_of(answers).name}, not {args.world.name}; "
                "name that one with --protocol or choose another folder"
            )
    return args


early(__name__, parse)  # before the slow imports

import shutil

from tqdm import tqdm

from diffusion_model_finetuning.core.drawing import draw_block, drawing, open_answers
from diffusion_model_finetuning.core.sd import load_sd
from evaluation import accuracy, fid, predict
from evaluation.answers.predictions import PREDICTIONS
from evaluation.core.environment import find_device, made_with
from evaluation.data.images import CanvasImages
from evaluation.judges.judging import find_files, judged, open_judges, source_of
from evaluation.judges.parts import Parts
from evaluation.metrics.distances import WEIGHTS
from machine_unlearning.core import weights
from machine_unlearning.sample import hasten, intervention


def check(args, model: str) -> None:
    """UserError if real images are not there, or a run is of another base model than `model`."""
    real = [(theme, obj) for theme in args.world.themes for obj in args.world.objects]
    CanvasImages(args.data, real, args.world.fid_images, args.world.size)
    check_model(args, model)


def draw_and_judge(how, answers, files, device: str, stays) -> None:
    """Fills an answer set and its predictions block by block; an image is removed then unless `stays(cell)`.

    `files` are the judges'. Features for FID are kept, too, if its network is there.
    """
    source = source_of(answers.folder, answers.protocol, files)
    if judged(answers.folder, answers.protocol, source):
        for left in answers.folder.glob(".judged-*"):
            shutil.rmtree(left, ignore_errors=True)
        return
    network = [Path(file) for file in WEIGHTS[answers.protocol.fid_extractor]]
    network = network if all(file.exists() for file in network) else []
    parts = Parts(answers, open_judges(answers.protocol, files, device), source, network, device)
    with tqdm(total=len(answers.blocks), desc=str(answers.folder), unit="block", disable=None) as bar:
        for claim, number, cells in answers.todo(parts.has):
            contents = draw_block(how, answers, claim, cells)
            if claim.held():
                parts.add(number, cells, contents)
                for cell in cells:
                    if not stays(cell):
                        answers.path(cell).unlink(missing_ok=True)
            bar.update()
    parts.join(made_with(device) | {"batch": answers.block})


def kept(keep: str, targets):
    """-> function of a cell: whether its image stays."""
    if keep == "targets":
        return lambda cell: any(target.covers(cell.theme, cell.object) for target in targets)
    return lambda cell: keep == "all"


def evaluate_run(sd, model: str, base, run: Path, record: dict, args, files, device: str) -> None:
    """Images and predictions of a run. `base` is the answer set of the base model, of fingerprint `model`."""
    if record.get("foreign"):
        predict.main([str(run / "answers"), "--device", device])
        return
    with weights.swapped(sd, run, model) as changed:
        answers = open_answers(run / "answers", args.world, sd, model, record, args.batch)
        act = intervention(sd, run, record)
        how = drawing(sd, answers, act, None if changed else base, args.compile)
        draw_and_judge(how, answers, files, device, kept(args.keep, forgotten(record)))


@command
def main(argv=None):
    args = parse(argv)
    device, files = find_device(args.device), find_files(args.world, (None, None))
    sd = load_sd(args.model, device, config=args.config)
    model = sd.fingerprint()
    check(args, model)
    hasten(sd, args.world.precision, args.compile, dict(zip(args.runs, args.records)))
    base = open_answers(args.base, args.world, sd, model, None, args.batch)
    draw_and_judge(drawing(sd, base, even=args.compile), base, files, device, kept("all", []))
    unfinished = []
    for run, record in [(None, None), *zip(args.runs, args.records)]:
        answers = run / "answers" if run else args.base
        if run:
            evaluate_run(sd, model, base, run, record, args, files, device)
        if not (answers / PREDICTIONS).exists():
            unfinished.append(str(answers))
            continue
        fid.main([str(answers), "--data", args.data, "--device", device])
        if run and str(args.base) not in unfinished:
            accuracy.main([str(answers), "--base", str(args.base)])
    if unfinished:
        raise UserError(
            f"{unfinished[0]}: other processes still draw images of it; run this again when they end"
        )


if __name__ == "__main__":
    main()
