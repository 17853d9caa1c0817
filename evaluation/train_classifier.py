"""Trains a judge: cross-entropy on images of the data set, AdamW, warm-up and cosine

    python -m evaluation.train_classifier --task object --settings mini --data mini --per-object 150 \
        --test-data mini:1 --out checkpoints/mini/object_classifier.safetensors [steps=2000 ...]

One script for the miniature's small transformers and for ViT-L/16. Images 19 and 20 of every folder are never
trained on. Order and augmentation of a step depend on the seed and its number alone, so a command that was
stopped continues from the checkpoint beside `--out`.
"""

import argparse
import itertools
import math
from pathlib import Path

from omegaconf import OmegaConf

from evaluation import canvas
from evaluation.canvas import TASKS
from evaluation.core import config, flags
from evaluation.core.errors import Finished, UserError, closest, command, early, refused
from evaluation.core.files import digest
from evaluation.mini import dataset as mini
from evaluation.protocol import CHOICES

FOLDER = Path(__file__).parent / "judges" / "settings"
NAMES = {
    "themes": {"mini": mini.THEMES, "near": mini.NEAR_THEMES, "all": canvas.THEMES},
    "objects": {"mini": mini.OBJECTS, "all": canvas.OBJECTS},
}


def settings_file(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"classifier_{name}.yaml"
    if not path.exists():
        shipped = [p.stem.removeprefix("classifier_") for p in sorted(FOLDER.glob("classifier_*.yaml"))]
        raise UserError(f"--settings {name}: no such settings; {closest(name, shipped)}")
    return path


def of_task(path: Path, task: str) -> dict:
    content = config.read_settings(path)
    sections = {key: content.pop(key, {}) for key in TASKS}
    return content | (sections[task] if isinstance(sections[task], dict) else {})


def read_settings(name: str, task: str, overrides=()) -> dict:
    """The settings of one task, shipped or a YAML file, with `key=value` overrides; raises UserError."""
    path, shipped = settings_file(name), of_task(settings_file("mini"), task)
    settings, limits = of_task(path, task), shipped.pop("limits")
    settings.pop("limits", None)
    for key, default in shipped.items():
        if key not in settings or not (key in NAMES or config.fits(default, settings[key])):
            raise UserError(f"{path}: its {key} is {settings.get(key)!r}; expected such as {default!r}")
    if unknown := sorted(map(str, settings.keys() - shipped.keys())):
        raise UserError(f"{path}: no setting is called {unknown[0]!r}; {closest(unknown[0], shipped)}")
    settings = OmegaConf.to_container(config.override(OmegaConf.create(settings), overrides))
    for key, known in NAMES.items():
        if not (names := settings[key]):
            raise UserError(f"{key}={names}: no images are asked for; name one at least")
        if not isinstance(names, list):
            if names not in known:
                raise UserError(f"{key}={names}: expected {', '.join(known)}, or a list of names")
            settings[key] = list(known[names])
    config.check_limits(settings, limits)
    config.check_choices(settings, {key: CHOICES[key] for key in NAMES})
    return settings


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m evaluation.train_classifier", description="Trains a judge.")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--settings", default="mini", help="mini, vit_large, or a YAML file")
    parser.add_argument("--data", default="mini", help="folder {theme}/{object}/{n}.jpg, or mini")
    count = flags.whole(0, 100_000)
    parser.add_argument("--per-object", type=count, default=20, help="images in each folder (default 20)")
    parser.add_argument("--test-data", help="whose images 1 to 20 are held out, in place of 19 and 20")
    parser.add_argument("--out", type=flags.new_path, required=True, help="file to write, .safetensors")
    flags.add_device(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to replace")
    args = parser.parse_intermixed_args(argv)
    args.out = Path(args.out)
    args.settings = read_settings(args.settings, args.task, args.overrides)
    if args.out.suffix != ".safetensors":
        raise UserError(f"--out {args.out}: expected a name that ends in .safetensors")
    if not args.per_object:
        raise UserError("--per-object 0: no images are asked for; name 1 or more")
    flags.data_set(args.data)
    flags.data_set(args.test_data or args.data, "--test-data")
    init = args.settings["init"]
    if init and not Path(init).is_file():
        raise UserError(f"init={init}: no such file")
    return args


early(__name__, parse)

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from evaluation.core.checkpoint import Checkpoint
from evaluation.core.environment import find_device, made_with
from evaluation.core.owner import alone_at
from evaluation.data.images import CanvasImages
from evaluation.judges.classifier import UNFIT, Classifier, load_backbone, metadata
from evaluation.judges.training_data import (
    Labelled,
    augment,
    batches,
    generator,
    in_memory,
    order,
    recognised,
)


def new_classifier(task: str, settings: dict) -> Classifier:
    """Seeded weights, or those of `init` under a seeded head."""
    torch.manual_seed(settings["seed"])
    labels = settings["themes" if task == "style" else "objects"]
    with refused("model and arguments: timm builds no such network", *UNFIT):
        classifier = Classifier(task, labels, *(settings[k] for k in ("model", "arguments", "mean", "std")))
    if settings["init"]:
        load_backbone(classifier, settings["init"])
    return classifier


def rate(step: int, steps: int, highest: float, warmup: int) -> float:
    """Learning rate: linear warm-up, then half a cosine down to zero."""
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(classifier: Classifier, data, settings: dict, device: str, checkpoint: Path, identity: str):
    """All steps, or those after the checkpoint; returns the averaged classifier."""
    averaged = AveragedModel(classifier, multi_avg_fn=get_ema_multi_avg_fn(settings["ema"]), use_buffers=True)
    task = TASKS.index(classifier.task)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.0, weight_decay=settings["weight_decay"])
    kept = Checkpoint(checkpoint, identity, classifier=classifier, averaged=averaged, optimizer=optimizer)
    start = kept.resume().get("step", 0)
    steps, batch, seed, dtype = settings["steps"], settings["batch"], settings["seed"], settings["precision"]
    stream = batches(data, order(len(data), batch, seed, start), settings["workers"])
    bar = tqdm(range(start, steps), initial=start, total=steps, desc=classifier.task, disable=None)
    for step in bar:
        images, labels = next(stream)
        images, labels = images.to(device).float().div(255), labels[:, task].to(device)
        moves = (settings[key] for key in ("flip", "shift", "zoom", "blur"))
        images = augment(images, *moves, generator(seed + 1, step))
        with torch.autocast(torch.device(device).type, getattr(torch, dtype), enabled=dtype != "float32"):
            logits = classifier.train()(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=settings["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), settings["clip"])
        optimizer.param_groups[0]["lr"] = rate(step, steps, settings["lr"], settings["warmup"])
        optimizer.step()
        averaged.update_parameters(classifier)
        if step % 20 == 0:
            if not math.isfinite(loss.item()):
                raise UserError(f"step {step}: the loss is {loss.item()}; lower lr, or train in float32")
            right = (logits.argmax(1) == labels).float().mean()
            bar.set_postfix(loss=f"{loss.item():.3f}", accuracy=f"{right.item():.3f}")
        if (step + 1) % settings["checkpoint_every"] == 0:
            kept.save(step=step + 1)
    return averaged.module.eval()


def accuracy(classifier: Classifier, data, settings: dict, device: str) -> dict:
    """How many of the images get their label, 0 to 1: `total`, and of every theme and every object."""
    right = recognised(classifier, data, settings["workers"], settings["batch"], device)
    result = {"images": len(data), "total": round(right.mean().item(), 4)}
    for label, key in zip(data.labels.T, NAMES):
        means = [right[label == i].mean().item() for i in range(len(settings[key]))]
        result[key] = {name: round(mean, 4) for name, mean in zip(settings[key], means)}
    return result


def make(args: argparse.Namespace) -> None:
    """Trains, tests and writes the judge, unless its file is there."""
    settings, checkpoint = args.settings, args.out.with_suffix(".checkpoint")
    identity = digest([args.task, settings, args.data, args.per_object, args.test_data])
    if args.out.exists():
        if metadata(args.out).get("identity") != identity:
            raise UserError(f"--out {args.out}: made with other settings or data; remove it or rename --out")
        checkpoint.unlink(missing_ok=True)  # a kill may have left it
        raise Finished(f"{args.out}: already trained")
    device, classifier = find_device(args.device), new_classifier(args.task, settings)
    names = settings["themes"], settings["objects"]

    def labelled(root, indices):
        images = CanvasImages(root, itertools.product(*names), indices)
        return Labelled(images, *names, classifier.size)

    held_out = labelled(args.test_data or args.data, range(1, 21) if args.test_data else canvas.TEST)
    training = labelled(args.data, [i for i in range(1, args.per_object + 1) if i not in canvas.TEST])
    training = in_memory(training, settings["cache_gb"], settings["workers"])
    classifier = train(classifier.to(device), training, settings, device, checkpoint, identity)
    report = accuracy(classifier, held_out, settings, device)
    about = {"accuracy": report, "identity": identity, "settings": settings, "made_with": made_with(device)}
    classifier.save(args.out, settings["half"], **about)
    checkpoint.unlink(missing_ok=True)
    print(f"{args.out}: {report['total']:.1%} of {report['images']} held-out images")
    for name, value in (report["themes"] | report["objects"]).items():
        print(f"    {name:24}{value:.1%}")


@command
def main(argv=None):
    args = parse(argv)
    with alone_at(args.out):
        make(args)


if __name__ == "__main__":
    main()
